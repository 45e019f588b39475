package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gateway/internal/advice"
	"gateway/internal/child"
	"gateway/internal/config"
	"gateway/internal/handoff"
	"gateway/internal/service"
	"gateway/internal/terminal"
)

const (
	// serviceSlack is how much longer than the gateway's own deadlines systemd waits.
	serviceSlack = 15 * time.Second
	// serviceTime bounds a call of systemctl.
	serviceTime = 90 * time.Second
)

type serviceFlags struct {
	user, system bool
	name         string
}

func newServiceCommand(o *options) *cobra.Command {
	f := &serviceFlags{}
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Run the gateway under systemd",
		Long:  "Write, show and remove the unit files with which systemd runs the gateway, for this user or for the machine.",
		Example: `  gateway service install --now
  gateway service status`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args: cobra.NoArgs,
	}
	flags := cmd.PersistentFlags()
	flags.BoolVar(&f.user, "user", false, "for this user (the default, except for root)")
	flags.BoolVar(&f.system, "system", false, "for the whole machine")
	flags.StringVar(&f.name, "name", "gateway", "name of the service")
	cmd.MarkFlagsMutuallyExclusive("user", "system")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		if runtime.GOOS != "linux" {
			return advice.Errorf("this system has no systemd").Try("a service of your system that starts: gateway run")
		}
		f.system = f.system || (!f.user && os.Getuid() == 0)
		return nil
	}
	cmd.AddCommand(newServiceInstallCommand(o, f), newServiceUninstallCommand(f), newServiceStatusCommand(f))
	return cmd
}

func newServiceInstallCommand(o *options, f *serviceFlags) *cobra.Command {
	var runAs string
	var socket, show, now bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Write the unit files; --now starts the service",
		Long: `Write the unit files of systemd. "systemctl reload" restarts the gateway without loss. systemd watches the
gateway and starts it again after a crash, but not when a person must act first. With --socket systemd opens the
address, so that connections wait while no gateway runs.`,
		Example: `  gateway service install --now
  gateway service install --print --socket
  sudo gateway service install --system --config /etc/gateway.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, elsewhere, err := o.unit(f, runAs, socket)
			if err != nil {
				return err
			}
			dir, err := service.Dir(f.system)
			if err != nil {
				return err
			}
			files, err := u.Files(dir)
			if err != nil {
				return err
			}
			for _, name := range elsewhere {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), advice.Text("gateway: warning: "+name+" is set here and will not be for the service", "the configuration file, or EnvironmentFile= in a drop-in"))
			}
			out := cmd.OutOrStdout()
			if show {
				for _, file := range files {
					_, _ = fmt.Fprintf(out, "# %s\n%s\n", file.Path, file.Text)
				}
				return nil
			}
			if err := service.Write(files); err != nil {
				return err
			}
			for _, file := range files {
				_, _ = fmt.Fprintf(out, "wrote %s\n", file.Path)
			}
			unit := filepath.Base(files[len(files)-1].Path) // the socket, when there is one
			units := []string{f.name + ".service"}
			if socket {
				units = append(units, unit)
			}
			try := f.systemctl("daemon-reload") + " && " + f.systemctl(append([]string{"enable", "--now"}, units...)...)
			if !now {
				_, _ = fmt.Fprintf(out, "start it with: %s\n", try)
				return nil
			}
			if _, err := f.call(cmd.Context(), "daemon-reload"); err != nil {
				return advice.Wrap(err).Try(try)
			}
			if _, err := f.call(cmd.Context(), append([]string{"enable", "--now"}, units...)...); err != nil {
				return advice.Wrap(err).Try(f.systemctl("status", units[0]))
			}
			_, _ = fmt.Fprintf(out, "%s runs\n", units[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&runAs, "run-as", "", "user of a system service; without it a user that exists only while the service runs")
	cmd.Flags().BoolVar(&socket, "socket", false, "let systemd open the address")
	cmd.Flags().BoolVar(&show, "print", false, "print the files and change nothing")
	cmd.Flags().BoolVar(&now, "now", false, "start the service too, and at every boot")
	return cmd
}

// unit describes the service of this executable with the configuration on disk, which must be valid. elsewhere names
// the variables that are set in this environment and will not be in the service's.
func (o *options) unit(f *serviceFlags, runAs string, socket bool) (u service.Unit, elsewhere []string, err error) {
	executable, err := handoff.Executable(os.Args[0])
	if err != nil {
		return u, nil, err
	}
	loaded, err := config.Load(o.source())
	if err != nil {
		return u, nil, err
	}
	l := loaded.Config.Lifecycle
	u = service.Unit{
		Name: f.name, System: f.system, RunAs: runAs, Executable: filepath.Clean(executable), Socket: socket, Listen: loaded.Config.Listen,
		Start: l.StartTimeout + serviceSlack, Stop: l.ShutdownTimeout + serviceSlack,
	}
	if runAs != "" && !f.system {
		return u, nil, advice.Errorf("--run-as is for a system service").Try("--system")
	}
	if !f.system {
		u.Path = os.Getenv("PATH")
	}
	if u.Config, err = absolute(loaded.File); err != nil {
		return u, nil, err
	}
	for key, origin := range loaded.Origins {
		if name, env := strings.CutPrefix(origin, "env:"); env && key != "state_dir" {
			elsewhere = append(elsewhere, name)
		}
	}
	slices.Sort(elsewhere)
	if _, chosen := loaded.Origins["state_dir"]; chosen {
		u.StateDir = loaded.Config.StateDir
	}
	return u, elsewhere, nil
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

func newServiceUninstallCommand(f *serviceFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "uninstall",
		Short:   "Stop the service and remove its unit files; keep its state",
		Example: "  gateway service uninstall",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := service.Dir(f.system)
			if err != nil {
				return err
			}
			if _, err := service.Installed(dir, f.name); err != nil { // a unit that gateway did not write is not stopped either
				return err
			}
			// An error does not keep the files: the service may not be enabled, or no systemd runs.
			_, disabled := f.call(cmd.Context(), "disable", "--now", f.name+".service", f.name+".socket")
			removed, err := service.Remove(dir, f.name)
			if err != nil {
				return err
			}
			if len(removed) == 0 {
				return advice.Errorf("there is no service %s in %s", f.name, dir).Try("gateway service status")
			}
			for _, path := range removed {
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", path)
			}
			if _, err := f.call(cmd.Context(), "daemon-reload"); err != nil && disabled != nil {
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), "systemd could not be notified: %s\n", terminal.FirstLine(err.Error()))
			}
			return nil
		},
	}
}

// serviceDocument is the contract of `gateway service status --json`.
type serviceDocument struct {
	Name      string   `json:"name"`
	System    bool     `json:"system"`
	Files     []string `json:"files"`
	Reachable bool     `json:"reachable"` // systemd answers
	Why       string   `json:"why,omitempty"`
	Active    string   `json:"active,omitempty"`
	Enabled   string   `json:"enabled,omitempty"`
	MainPID   string   `json:"main_pid,omitempty"`
	Restarts  string   `json:"restarts,omitempty"`
	Status    string   `json:"status,omitempty"`
}

func newServiceStatusCommand(f *serviceFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the service as systemd reports it",
		Example: "  gateway service status",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := service.Dir(f.system)
			if err != nil {
				return err
			}
			doc := serviceDocument{Name: f.name, System: f.system, Files: []string{}}
			for _, suffix := range []string{".service", ".socket"} {
				if path := filepath.Join(dir, f.name+suffix); exists(path) {
					doc.Files = append(doc.Files, path)
				}
			}
			text, err := f.call(cmd.Context(), "show", "-p", "ActiveState,UnitFileState,MainPID,NRestarts,StatusText", f.name+".service")
			doc.Reachable = err == nil
			if err != nil {
				doc.Why = terminal.FirstLine(err.Error())
			}
			for line := range strings.Lines(text) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				switch name {
				case "ActiveState":
					doc.Active = value
				case "UnitFileState":
					doc.Enabled = value
				case "MainPID":
					doc.MainPID = value
				case "NRestarts":
					doc.Restarts = value
				case "StatusText":
					doc.Status = value
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), doc)
			}
			w := terminal.NewTable(cmd.OutOrStdout()) // without headings, so that nothing is cut
			w.Row("SERVICE", f.name)
			w.Row("files", cmp.Or(strings.Join(doc.Files, ", "), "none; gateway service install writes them"))
			if !doc.Reachable {
				w.Row("systemd", "does not answer: "+doc.Why)
				return w.Flush()
			}
			w.Row("active", doc.Active)
			w.Row("enabled", cmp.Or(doc.Enabled, "no"))
			w.Row("main process", doc.MainPID)
			w.Row("restarts by systemd", doc.Restarts)
			w.Row("status", doc.Status)
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// systemctl is the command line for a person to type.
func (f *serviceFlags) systemctl(args ...string) string {
	return strings.Join(append(append([]string{"systemctl"}, f.scope()...), args...), " ")
}

func (f *serviceFlags) scope() []string {
	if f.system {
		return nil
	}
	return []string{"--user"}
}

// call runs systemctl and returns what it prints.
func (f *serviceFlags) call(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, serviceTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", append(f.scope(), args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := child.Start(cmd)
	if err == nil {
		err = child.Wait(cmd)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", f.systemctl(args...), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
