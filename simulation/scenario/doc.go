// Package scenario is the description of a cluster, of what is pulled in it and
// of what goes wrong: a strict YAML format for people ([Parse]), and what becomes
// of it with a seed ([Scenario.Expand]): a [Run], in which every node, blob, pull
// and fault is spelled out. The simulator, the real nodes in virtual time and the
// real processes in network namespaces all take the same Run, so that what one of
// them predicts can be checked against another.
//
// It knows nothing of policies, and draws no conclusions: it has no clock, starts
// nothing, and measures nothing.
package scenario
