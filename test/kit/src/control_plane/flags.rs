//! The command lines and configuration files of the control plane's components.

use crate::binaries::Binaries;
use crate::control_plane::{API_PORT, NODE_ADDRESS, XDS_PORT};
use crate::state_dir::StateDir;
use crate::supervisor::Component;

const ETCD_URL: &str = "http://127.0.0.1:2379";

/// Every write is recorded, and what the service accounts of workloads read: what tests of zero writes and of least
/// privilege need. Everything else that runs here is an administrator or a part of the control plane.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
  userGroups: [system:masters, system:nodes, \"system:serviceaccounts:kube-system\"]
- level: None
  verbs: [get, list, watch]
  users: [\"system:apiserver\", \"system:anonymous\"]
- level: None
  nonResourceURLs: [\"*\"]
- level: Metadata
";

/// Automatic mTLS would make clusters wait for a node agent's certificates, which nobody gives out here.
const MESH_CONFIG: &str = "enableAutoMtls: false
defaultProviders:
  metrics: []
accessLogFile: /dev/stdout
";

pub(super) fn write_files(state: &StateDir) -> std::io::Result<()> {
    std::fs::write(state.root().join("audit-policy.yaml"), AUDIT_POLICY)?;
    std::fs::write(state.root().join("mesh.yaml"), MESH_CONFIG)
}

fn path(state: &StateDir, name: &str) -> String {
    state.root().join(name).to_string_lossy().into_owned()
}

/// `MCPGW_KIT_FSYNC=1` lets etcd sync its disk as in a cluster, for measurements; tests gain nothing by it.
pub(super) fn etcd(state: &StateDir, binaries: &Binaries) -> Component {
    let mut args = vec![
        format!("--data-dir={}", path(state, "etcd")),
        format!("--listen-client-urls={ETCD_URL}"),
        format!("--advertise-client-urls={ETCD_URL}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
    ];
    if std::env::var("MCPGW_KIT_FSYNC").map_or(true, |value| value != "1") {
        args.push("--unsafe-no-fsync".to_owned());
    }
    Component {
        name: "etcd",
        program: binaries.etcd.clone(),
        args,
        env: Vec::new(),
    }
}

pub(super) fn kube_apiserver(state: &StateDir, binaries: &Binaries) -> Component {
    let pki = |name: &str| path(state, &format!("pki/{name}"));
    Component {
        name: "kube-apiserver",
        program: binaries.kube_apiserver.clone(),
        args: vec![
            format!("--etcd-servers={ETCD_URL}"),
            format!("--cert-dir={}", path(state, "pki")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--secure-port={API_PORT}"),
            format!("--advertise-address={NODE_ADDRESS}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            format!("--kubelet-client-certificate={}", pki("admin.crt")),
            format!("--kubelet-client-key={}", pki("admin.key")),
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--enable-aggregator-routing=true".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
            format!("--audit-policy-file={}", path(state, "audit-policy.yaml")),
            format!("--audit-log-path={}", state.audit_log().to_string_lossy()),
            "--audit-log-maxsize=500".to_owned(),
            "--allow-privileged=true".to_owned(),
        ],
        env: Vec::new(),
    }
}

pub(super) fn kube_controller_manager(state: &StateDir, binaries: &Binaries) -> Component {
    Component {
        name: "kube-controller-manager",
        program: binaries.kube_controller_manager.clone(),
        args: vec![
            format!("--kubeconfig={}", state.kubeconfig().to_string_lossy()),
            "--controllers=*,-nodeipam,-node-lifecycle-controller,-cloud-node-lifecycle-controller"
                .to_owned(),
            "--use-service-account-credentials".to_owned(),
            format!("--service-account-private-key-file={}", path(state, "pki/sa.key")),
            format!("--root-ca-file={}", path(state, "pki/ca.crt")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            // Istio's and Gateway API's kinds must be garbage-collected and counted soon after they are installed.
            "--kube-api-qps=200".to_owned(),
            "--kube-api-burst=400".to_owned(),
        ],
        env: Vec::new(),
    }
}

pub(super) fn istiod(state: &StateDir, binaries: &Binaries) -> Component {
    // OpenShift's istiod has a revision; objects that carry a foreign one are silently ignored there.
    let revision = std::env::var("MCPGW_KIT_ISTIO_REVISION").unwrap_or_else(|_| "default".to_owned());
    let env = [
        ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
        ("PILOT_ENABLE_ALPN_FILTER", "false"),
        ("PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", "false"),
        ("PILOT_ENABLE_AMBIENT", "false"),
        // Proxies show their token on the plaintext port too: only a known one gets the Secrets of HTTPS listeners.
        ("XDS_AUTH_PLAINTEXT", "true"),
        ("POD_NAMESPACE", "istio-system"),
        ("POD_NAME", "istiod-0"),
        ("REVISION", &revision),
        ("CLUSTER_ID", "Kubernetes"),
    ];
    Component {
        name: "istiod",
        program: binaries.istiod.clone(),
        args: vec![
            "discovery".to_owned(),
            format!("--kubeconfig={}", state.kubeconfig().to_string_lossy()),
            format!("--grpcAddr={NODE_ADDRESS}:{XDS_PORT}"),
            "--secureGRPCAddr=".to_owned(),
            "--httpsAddr=".to_owned(),
            "--httpAddr=127.0.0.1:15080".to_owned(),
            "--monitoringAddr=127.0.0.1:15014".to_owned(),
            format!("--meshConfig={}", path(state, "mesh.yaml")),
        ],
        env: env.map(|(name, value)| (name, value.to_owned())).to_vec(),
    }
}
