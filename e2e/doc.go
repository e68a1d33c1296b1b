// Package e2e runs real Peercache processes between real clients (containerd,
// Podman, a Go client that replays what containerd 2 sends) and real registries
// (docker-registry, a scripted one that misbehaves on purpose), and looks at
// what a user would see: which bytes arrive, how soon, and what it cost the
// registry.
//
// The tests are behind the build tag e2e and need root, since they run
// containers. Everything happens in namespaces of their own (network, mounts,
// processes), which the kernel takes down with the test process however that
// ends: nothing outside is reached, and no process, mount or rule stays behind.
//
// It isn't the place for what a package can test alone: a test here costs
// seconds and says less about where a fault is.
package e2e
