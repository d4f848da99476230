// Package crds has no code: this module pins the version of the Gateway API whose CRDs the test kit installs.
package crds
