"""How each component is started: its command line, and its configuration file where it wants one."""

import json
from pathlib import Path
from typing import Any

from cluster.places import CNI_PROGRAMS, CONTAINERD, DNS_IP, NODE, NODE_IP, PAUSE, PODS, SERVICES, Plan

QUICK = ("--kube-api-qps=200", "--kube-api-burst=400")
ISSUER = "https://kubernetes.default.svc.cluster.local"


def etcd() -> list[str]:
    """Without fsync: the data lives as long as the namespaces do."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        *("etcd", "--data-dir=/var/lib/etcd", "--unsafe-no-fsync", "--log-level=warn"),
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
    ]


def api_server(plan: Plan) -> list[str]:
    pki = plan.pki
    return [
        plan.programs["kube-apiserver"],
        *("--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=0.0.0.0"),
        *(f"--advertise-address={NODE_IP}", f"--service-cluster-ip-range={SERVICES}"),
        *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
        *(f"--client-ca-file={pki}/ca.crt", f"--service-account-issuer={ISSUER}"),
        *(f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key"),
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction,PodSecurity,ResourceQuota"),
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        *("--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true"),
        *("--endpoint-reconciler-type=master-count", "--profiling=false", "--v=1"),
    ]


def controller_manager(plan: Plan) -> list[str]:
    return [
        plan.programs["kube-controller-manager"],
        *(f"--kubeconfig={plan.pki}/kcm.kubeconfig", f"--service-account-private-key-file={plan.pki}/sa.key"),
        *(f"--root-ca-file={plan.pki}/ca.crt", "--use-service-account-credentials=true", "--leader-elect=false"),
        *("--secure-port=0", "--allocate-node-cidrs=false", "--profiling=false", "--v=1", *QUICK),
    ]


def scheduler(plan: Plan) -> list[str]:
    return [
        *(plan.programs["kube-scheduler"], f"--kubeconfig={plan.pki}/scheduler.kubeconfig"),
        *("--leader-elect=false", "--secure-port=0", "--profiling=false", "--v=1", *QUICK),
    ]


def containerd(plan: Plan) -> list[str]:
    return ["containerd", "--config", f"{plan.conf}/containerd.toml"]


def kubelet(plan: Plan) -> list[str]:
    return [
        *(
            plan.programs["kubelet"],
            f"--config={plan.conf}/kubelet.json",
            f"--kubeconfig={plan.pki}/kubelet.kubeconfig",
        ),
        *(f"--hostname-override={NODE}", f"--node-ip={NODE_IP}", "--root-dir=/var/lib/kubelet"),
    ]


def proxy(plan: Plan) -> list[str]:
    return [plan.programs["kube-proxy"], f"--config={plan.conf}/proxy.json", "--v=1"]


def fake_gpus(plan: Plan) -> list[str]:
    return [plan.programs["fakegpu"], "-n", str(plan.gpus)]


def write_files(plan: Plan) -> None:
    """The configuration files of a node."""
    plan.conf.mkdir(exist_ok=True)
    (plan.conf / "containerd.toml").write_text(_containerd_file(plan))
    (plan.conf / "resolv.conf").write_text(f"nameserver {DNS_IP}\n")
    _json(plan.conf / "kubelet.json", _kubelet_file(plan))
    _json(plan.conf / "proxy.json", _proxy_file(plan))
    (plan.conf / "cni").mkdir(exist_ok=True)
    _json(plan.conf / "cni/10-pods.conflist", _cni_file())


def _containerd_file(plan: Plan) -> str:
    """For Debian's containerd 1.6. Without CAP_SYS_RESOURCE runc may not lower a score; `opt` would write to /opt."""
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{plan.conf}/cni"
"""


def _cni_file() -> dict[str, Any]:
    """`ptp`: pod to pod passes the forward hook, where policies are enforced."""
    ranges, routes = [[{"subnet": PODS}]], [{"dst": "0.0.0.0/0"}]
    addresses = {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": ranges, "routes": routes}
    plugins = [
        {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}


def _kubelet_file(plan: Plan) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{plan.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{plan.pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{plan.pki}/kubelet-server.key",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,  # some machines still have it
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{plan.conf}/resolv.conf",
        "volumePluginDir": "/run/kubelet-plugins",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "volumeStatsAggPeriod": "0s",
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "maxPods": 110,
        "shutdownGracePeriod": "0s",
    }


def _proxy_file(plan: Plan) -> dict[str, Any]:
    """Limits of connection tracking are the machine's, not the namespace's: they are left alone."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": NODE,
        "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": f"{plan.pki}/proxy.kubeconfig"},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))
