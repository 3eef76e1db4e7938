package main

import (
	"context"
	"crypto/subtle"
	"log/slog"

	"github.com/dexidp/dex/connector"
)

// person is a user as a test wants it, groups included.
type person struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Password      string   `json:"password"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"emailVerified"`
	Groups        []string `json:"groups"`
}

// people is a connector: who may log in with a password, and what is said of them.
type people struct {
	People []person `json:"people"`
}

var (
	_ connector.PasswordConnector = &people{}
	_ connector.RefreshConnector  = &people{}
)

// Open makes this configuration the connector itself.
func (p *people) Open(_ string, _ *slog.Logger) (connector.Connector, error) { return p, nil }

// Prompt is the login page's word for a name.
func (p *people) Prompt() string { return "" }

// Login says who this is.
func (p *people) Login(_ context.Context, s connector.Scopes, name, password string) (connector.Identity, bool, error) {
	for _, one := range p.People {
		right := subtle.ConstantTimeCompare([]byte(one.Password), []byte(password)) == 1
		if one.Name == name && right {
			return one.identity(s), true, nil
		}
	}
	return connector.Identity{}, false, nil
}

// Refresh leaves everything as it was at the login.
func (p *people) Refresh(_ context.Context, _ connector.Scopes, known connector.Identity) (connector.Identity, error) {
	return known, nil
}

func (p person) identity(s connector.Scopes) connector.Identity {
	known := connector.Identity{
		UserID:            p.ID,
		Username:          p.Name,
		PreferredUsername: p.Name,
		Email:             p.Email,
		EmailVerified:     p.EmailVerified,
	}
	if s.Groups {
		known.Groups = p.Groups
	}
	return known
}
