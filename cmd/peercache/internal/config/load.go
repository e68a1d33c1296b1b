package config

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Settings are the settings of a node as flags of a command. Register them
// with [New], parse the flags, then [Settings.Load].
type Settings struct {
	all   []*setting
	flags map[string]*flagValue
	file  string
	env   func(string) string
}

// New adds a flag for each setting, and --config, to flags. env looks up
// environment variables; "" is unset.
func New(flags *pflag.FlagSet, env func(string) string) *Settings {
	s := &Settings{all: settings(), flags: map[string]*flagValue{}, env: env}
	def := Default(env)
	for _, set := range s.all {
		v := &flagValue{setting: set, def: set.show(&def)}
		s.flags[set.flag] = v
		f := flags.VarPF(v, set.flag, "", set.help)
		if set.arg == "" {
			f.NoOptDefVal = "true"
		}
	}
	flags.StringVar(&s.file, "config", "", "YAML `FILE` with settings")
	return s
}

// flagValue keeps what was given on the command line until the weaker sources
// have been read; a value that does not parse is an error at once.
type flagValue struct {
	setting *setting
	def     string
	values  []string
}

func (v *flagValue) String() string {
	if v.setting == nil { // pflag makes a zero value to compare defaults with
		return ""
	}
	if len(v.values) > 0 {
		return strings.Join(v.values, ",")
	}
	if v.setting.arg == "" && v.def == "false" {
		return ""
	}
	return v.def
}

func (v *flagValue) Type() string { return cmp.Or(v.setting.arg, "bool") }

func (v *flagValue) Set(s string) error {
	if err := v.setting.set(&Config{}, []string{s}); err != nil {
		return err
	}
	if !v.setting.list {
		v.values = nil
	}
	v.values = append(v.values, s)
	return nil
}

// Load returns the configuration: defaults, then the file that --config or
// PEERCACHE_CONFIG names, then the environment, then the flags. A list given by
// a stronger source replaces that of a weaker one. All faults are in the error.
func (s *Settings) Load() (*Config, error) {
	c := Default(s.env)
	var errs []error
	if path := cmp.Or(s.file, s.env("PEERCACHE_CONFIG")); path != "" {
		errs = append(errs, s.readFile(&c, path))
	}
	for _, set := range s.all {
		// Variables that are no setting are left alone: Kubernetes puts
		// PEERCACHE_PORT and the like into pods beside a service of that name.
		if v := s.env(set.env()); v != "" {
			values := []string{v}
			if set.list {
				values = splitList(v)
			}
			errs = append(errs, set.apply(&c, values, set.env()))
		}
		if v := s.flags[set.flag].values; v != nil {
			errs = append(errs, set.apply(&c, v, "--"+set.flag))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &c, nil
}

func (s *setting) apply(c *Config, values []string, where string) error {
	c.from[s.flag] = where
	if err := s.set(c, values); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	return nil
}

func splitList(s string) []string {
	list := []string{}
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// At says where the value of a setting came from, by the name of its flag, for
// messages: "--listen", "PEERCACHE_LISTEN", "node.yaml:3: listen". A default is
// called by the flag that would change it.
func (c *Config) At(flag string) string {
	if where, ok := c.from[flag]; ok {
		return where
	}
	return "--" + flag
}
