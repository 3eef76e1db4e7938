package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const pollInterval = 20 * time.Millisecond

func (p process) logFile() string {
	return filepath.Join(p.logs, p.ns+"_"+p.pod+"_"+p.container+".log")
}

// containerLogs sends the log as it is, and with follow=true what is appended until the file is removed:
// so a test writes a container's output, and ends it. A container without a file has logged nothing yet.
func (n node) containerLogs(w http.ResponseWriter, req *http.Request) {
	path := n.process(req).logFile()
	content, _ := os.ReadFile(path)
	shown := content
	if lines, err := strconv.Atoi(req.FormValue("tailLines")); err == nil {
		shown = lastLines(content, lines)
	}
	w.Header().Set("Content-Type", "text/plain")
	out := flusher{w, http.NewResponseController(w)}
	if _, err := out.Write(shown); err == nil && req.FormValue("follow") == "true" {
		_ = follow(req.Context(), path, int64(len(content)), out)
	}
}

// follow copies what is beyond offset, and goes on until the file is removed or the client has gone.
func follow(ctx context.Context, path string, offset int64, out io.Writer) error {
	seen := offset > 0
	for ctx.Err() == nil {
		copied, err := copyFrom(path, offset, out)
		switch {
		case err == nil:
			seen = true
			offset += copied
		case !os.IsNotExist(err):
			return err
		case seen:
			return nil
		}
		if copied == 0 {
			time.Sleep(pollInterval)
		}
	}
	return nil
}

func copyFrom(path string, offset int64, out io.Writer) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(out, file)
}

func lastLines(content []byte, lines int) []byte {
	end := len(bytes.TrimSuffix(content, []byte("\n")))
	for ; lines > 0 && end >= 0; lines-- {
		end = bytes.LastIndexByte(content[:max(end, 0)], '\n')
	}
	return content[min(end+1, len(content)):]
}

// flusher sends each piece at once: a reader of logs -f waits for every line.
type flusher struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (f flusher) Write(data []byte) (int, error) {
	n, err := f.ResponseWriter.Write(data)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}
