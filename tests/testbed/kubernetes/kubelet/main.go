// Kubelet serves the streaming half of a node's API: exec, attach, port-forward and container logs.
//
// kwok keeps pods alive without running them, and is no judge of streams. This program is: it answers
// with the code real kubelets and container runtimes use (k8s.io/cri-streaming), and runs each command
// as a local process. Whoever may call it may run anything, hence the client certificate it insists on.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"net/http"
	"os"
)

type node struct {
	cluster string // what commands find in $CLUSTER, so that a test can tell which cluster answered
	files   string // the working directory of all commands: what a container's file system would be
	logs    string // holds NAMESPACE_POD_CONTAINER.log
}

func main() {
	var n node
	listen := flag.String("listen", "127.0.0.1:10250", "address to serve on")
	cert := flag.String("tls-cert-file", "", "certificate to serve with")
	key := flag.String("tls-private-key-file", "", "its key")
	ca := flag.String("client-ca-file", "", "who signs the clients' certificates")
	flag.StringVar(&n.cluster, "cluster", "", "the cluster's name, $CLUSTER to all commands")
	flag.StringVar(&n.files, "files", ".", "working directory of all commands")
	flag.StringVar(&n.logs, "logs", ".", "directory of NAMESPACE_POD_CONTAINER.log")
	flag.Parse()
	server := &http.Server{Addr: *listen, Handler: n.routes(), TLSConfig: tlsConfig(*ca)}
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}

// routes has the paths that kube-apiserver asks for, and no others.
func (n node) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{ns}/{pod}/{container}", n.exec)
	mux.HandleFunc("/attach/{ns}/{pod}/{container}", n.attach)
	mux.HandleFunc("/portForward/{ns}/{pod}", n.portForward)
	mux.HandleFunc("GET /containerLogs/{ns}/{pod}/{container}", n.containerLogs)
	return mux
}

// tlsConfig leaves HTTP/2 out, over which nothing can be upgraded.
func tlsConfig(caFile string) *tls.Config {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		log.Fatalf("%s holds no certificate", caFile)
	}
	return &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"http/1.1"}}
}
