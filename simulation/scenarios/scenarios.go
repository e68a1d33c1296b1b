// Package scenarios is the library: scenarios that people meet, each a file in
// the format of package scenario, with the question that it answers. They are part of
// the program, and are run by name.
//
// It does not read what is in them.
package scenarios

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// FS holds the library's files, NAME.yaml each.
//
//go:embed *.yaml
var FS embed.FS

const suffix = ".yaml"

// maxFile is more than a scenario may have, in bytes; see scenario.Parse.
const maxFile = 1 << 20

// Names are those of the library, sorted.
func Names() []string {
	files, err := fs.Glob(FS, "*"+suffix)
	if err != nil {
		panic(err) // the pattern is sound
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = strings.TrimSuffix(f, suffix)
	}
	slices.Sort(names)
	return names
}

// Open reads a scenario: one of the library by its name, else the file of that path. What
// holds a slash or a dot is always a path. file is its name for messages. The
// error wraps [fs.ErrNotExist] if there is neither, and names those that there are.
func Open(nameOrPath string) (file string, data []byte, err error) {
	if !strings.ContainsAny(nameOrPath, `/\.`) {
		if data, err := FS.ReadFile(nameOrPath + suffix); err == nil {
			return nameOrPath + suffix, data, nil
		}
	}
	data, err = read(nameOrPath)
	if err != nil {
		return nameOrPath, nil, fmt.Errorf("no scenario of the library, which has %s, and no file that can be read: %w",
			strings.Join(Names(), ", "), err)
	}
	return nameOrPath, data, nil
}

// read reads a file, but no more than a scenario may have, so that one may not name a device
// without an end.
func read(path string) ([]byte, error) {
	f, err := os.Open(path) // the user names it
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: more than %d KiB", path, maxFile>>10)
	}
	return data, err
}
