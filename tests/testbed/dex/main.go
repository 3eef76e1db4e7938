// Dex is the OIDC provider of that name: its own server, storage and web pages, with the test bed's users.
//
// The released command needs C for SQLite and gives its static users no groups. This one keeps everything in
// memory, so that each start has signing keys of its own, and knows the users that its configuration lists.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
)

const connectorID = "people"

type configuration struct {
	Issuer          string           `json:"issuer"`
	Listen          string           `json:"listen"`
	Certificate     string           `json:"certificate"`
	Key             string           `json:"key"`
	IDTokenLifetime float64          `json:"idTokenLifetime"` // seconds
	Clients         []storage.Client `json:"clients"`
	People          json.RawMessage  `json:"people"`
}

func main() {
	path := flag.String("config", "", "configuration file (JSON)")
	flag.Parse()
	c, err := read(*path)
	if err != nil {
		log.Fatal(err)
	}
	handler, err := c.server()
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal((&http.Server{Addr: c.Listen, Handler: handler}).ListenAndServeTLS(c.Certificate, c.Key))
}

func read(path string) (configuration, error) {
	var c configuration
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

func (c configuration) server() (http.Handler, error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server.ConnectorsConfig[connectorID] = func() server.ConnectorConfig { return &people{} }
	refresh, err := server.NewRefreshTokenPolicy(logger, false, "", "", "")
	if err != nil {
		return nil, err
	}
	return server.NewServer(context.Background(), server.Config{
		Issuer:             c.Issuer,
		Storage:            c.storage(logger),
		SkipApprovalScreen: true,
		PasswordConnector:  connectorID,
		IDTokensValidFor:   time.Duration(c.IDTokenLifetime * float64(time.Second)),
		RefreshTokenPolicy: refresh,
		Logger:             logger,
	})
}

func (c configuration) storage(logger *slog.Logger) storage.Storage {
	known := storage.Connector{ID: connectorID, Type: connectorID, Name: connectorID, Config: c.People}
	return storage.WithStaticClients(storage.WithStaticConnectors(memory.New(logger), []storage.Connector{known}), c.Clients)
}
