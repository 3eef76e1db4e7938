package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	osexec "os/exec"
	"syscall"
	"time"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const idleTimeout = 4 * time.Hour // the default of real kubelets

// process is one command to run, as one container of one pod would see it.
type process struct {
	node
	ns, pod, container string
}

func (n node) process(req *http.Request) process {
	return process{n, req.PathValue("ns"), req.PathValue("pod"), req.PathValue("container")}
}

func (n node) exec(w http.ResponseWriter, req *http.Request) {
	options, err := remotecommand.NewOptions(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := n.process(req)
	remotecommand.ServeExec(w, req, p, p.pod, "", p.container, req.Form["command"], options, idleTimeout,
		remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

// ExecInContainer runs the command, with a terminal of its own if one was asked for.
func (p process) ExecInContainer(_ context.Context, _, _, _ string, argv []string, in io.Reader,
	out, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if len(argv) == 0 {
		return errors.New("no command")
	}
	cmd := osexec.Command(argv[0], argv[1:]...)
	cmd.Dir = p.files
	cmd.Env = append(os.Environ(), "CLUSTER="+p.cluster, "HOSTNAME="+p.pod, "HOME="+p.files)
	cmd.SysProcAttr = dieTogether()
	if tty {
		return exitCode(runOnTerminal(cmd, in, out, resize))
	}
	return exitCode(runOnPipes(cmd, in, out, stderr))
}

// runOnPipes waits for the command and its output, but not for the client's stdin to end: it may never do so.
func runOnPipes(cmd *osexec.Cmd, in io.Reader, out, stderr io.WriteCloser) error {
	if out != nil {
		cmd.Stdout = out
	}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	if in != nil {
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, in)
			_ = stdin.Close()
		}()
	}
	return cmd.Run()
}

func runOnTerminal(cmd *osexec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	cmd.Env = append(cmd.Env, "TERM=xterm")
	terminal, err := pty.Start(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = terminal.Close() }()
	go func() {
		for size := range resize {
			_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	_, _ = io.Copy(out, terminal) // ends with EIO when the last process on the terminal has gone
	return cmd.Wait()
}

// dieTogether ends commands with this program, which ends with the test run: none may outlive it.
func dieTogether() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// exitCode says what a shell would: the code, 128 + n for signal n, and 127 for a command that is not there.
func exitCode(err error) error {
	var exited *osexec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exited):
		code := exited.ExitCode()
		if status, ok := exited.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			code = 128 + int(status.Signal())
		}
		return utilexec.CodeExitError{Err: err, Code: code}
	case errors.Is(err, osexec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return utilexec.CodeExitError{Err: err, Code: 127}
	}
	return err
}
