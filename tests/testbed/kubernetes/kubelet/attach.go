package main

import (
	"context"
	"io"
	"net/http"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

func (n node) attach(w http.ResponseWriter, req *http.Request) {
	options, err := remotecommand.NewOptions(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := n.process(req)
	remotecommand.ServeAttach(w, req, p, p.pod, "", p.container, options, idleTimeout,
		remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

// AttachContainer plays a container whose process is cat, and whose log is its output: what comes in goes out;
// where nothing can come in, what is logged from now on goes out.
func (p process) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, _ io.WriteCloser,
	_ bool, resize <-chan remotecommand.TerminalSize) error {
	go func() {
		for range resize { // nobody has a size to change, but the sender must not wait
		}
	}()
	if in != nil && out != nil {
		_, err := io.Copy(out, in)
		return err
	}
	if out != nil {
		return follow(ctx, p.logFile(), 0, out)
	}
	_, err := io.Copy(io.Discard, in)
	return err
}
