// Command kube is all of Kubernetes that a test cluster needs, linked once:
// store, control plane, node agents and client. Like busybox it looks at the
// name it was called by, so every component is a symbolic link to it; a first
// argument does as well ("kube kubelet --version").
//
// One link step instead of seven is what keeps a warm build under a minute.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	_ "time/tzdata"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"

	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// component is a program of this binary. Its command is made only when it is
// to run: making one registers flags and metrics for the whole process, and
// two components would register the same ones.
type component struct {
	name string
	run  func()
}

var components = []component{
	{"etcd", func() { etcdmain.Main(os.Args) }},
	{"kube-apiserver", func() { daemon(apiserver.NewAPIServerCommand()) }},
	{"kube-controller-manager", func() { daemon(controllers.NewControllerManagerCommand()) }},
	{"kube-scheduler", func() { daemon(scheduler.NewSchedulerCommand()) }},
	{"kube-proxy", func() { daemon(proxy.NewProxyCommand()) }},
	{"kubelet", func() { daemon(kubelet.NewKubeletCommand(context.Background())) }},
	{"kubectl", client},
}

func daemon(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

func client() {
	// The verbosity flag has to be known before the flags are parsed.
	if _, err := logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)); err != nil {
		kubectlutil.CheckErr(err)
	}
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// start runs the component of that name and reports whether there is one.
func start(name string) bool {
	at := slices.IndexFunc(components, func(c component) bool { return c.name == name })
	if at < 0 {
		return false
	}
	components[at].run()
	return true
}

func main() {
	if start(filepath.Base(os.Args[0])) {
		return
	}
	if len(os.Args) > 1 {
		os.Args = os.Args[1:]
		if start(os.Args[0]) {
			return
		}
	}
	var names []string
	for _, c := range components {
		names = append(names, c.name)
	}
	fmt.Fprintln(os.Stderr, "usage: kube COMPONENT [ARGUMENT]...\ncomponents:", strings.Join(names, " "))
	os.Exit(2)
}
