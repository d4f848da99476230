//! Values of the chart as its documents have them together: the guides' commands, and for every other value a combination in
//! which somebody would set it. Each is linted and rendered, and what comes out is given to a real API server.

/// Step 2 of the install guide.
pub const INSTALL: &[&str] = &[
    "controller.enabled=true",
    "gateway.publicHost=your-hostname.example.com",
    "mcpGatewayExtension.create=true",
    "mcpGatewayExtension.gatewayRef.name=your-gateway",
    "mcpGatewayExtension.gatewayRef.namespace=gateway-system",
];

/// Step 3 of the guide to isolated gateways.
pub const CONTROLLER: &[&str] = &[
    "controller.enabled=true",
    "gateway.create=false",
    "httpRoute.create=false",
    "mcpGatewayExtension.create=false",
    "envoyFilter.create=false",
];

/// Step 4 of it.
pub const TEAM_A: &[&str] = &[
    "controller.enabled=false",
    "broker.create=true",
    "gateway.create=true",
    "gateway.name=team-a-gateway",
    "gateway.namespace=gateway-system",
    "gateway.publicHost=team-a.example.com",
    "gateway.internalHostPattern=*.team-a.mcp.local",
    "httpRoute.create=true",
    "mcpGatewayExtension.create=true",
    "mcpGatewayExtension.gatewayRef.name=team-a-gateway",
    "mcpGatewayExtension.gatewayRef.namespace=gateway-system",
    "envoyFilter.create=true",
    "envoyFilter.name=team-a-gateway",
];

/// Operator and webhook as a platform team runs them.
const PLACED: &[&str] = &[
    "controller.replicas=2",
    "webhook.replicas=3",
    "resources.limits.memory=1Gi",
    "tolerations[0].operator=Exists",
    "nodeSelector.disk=ssd",
    "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
    "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey=zone",
    "imagePullSecrets[0].name=pull",
    "podAnnotations.note=y",
    "fullnameOverride=other",
    "networkPolicy.enabled=true",
];

/// Every image from somewhere else.
const MIRRORED: &[&str] = &[
    "image.repository=mirror.example.com/broker",
    "image.tag=1.2.3",
    "imageController.repository=mirror.example.com/operator",
    "imageController.tag=1.2.3",
    "imageController.pullPolicy=Always",
    "webhook.image.repository=mirror.example.com/admission",
    "webhook.image.tag=1.2.4",
    "webhook.image.pullPolicy=Never",
    "uninstall.image.repository=mirror.example.com/mcpgw",
    "uninstall.image.tag=1.2.5",
    "uninstall.image.pullPolicy=IfNotPresent",
    "test.image=mirror.example.com/busybox:1",
];

/// The pair of somebody else.
const EXTERNAL: &[&str] = &["webhook.certs=external", "webhook.caBundle=Y2E="];

const CERT_MANAGER: &[&str] = &[
    "webhook.certs=certManager",
    "webhook.advisory=true",
    "commonLabels.team=x",
];

/// An operator alone, whose rules are not enforced at admission.
const WITHOUT_WEBHOOK: &[&str] = &[
    "webhook.enabled=false",
    "webhook.certs=managed",
    "uninstall.releaseFinalizers=false",
];

/// A Gateway as a cluster without a load balancer has it.
const GATEWAY: &[&str] = &[
    "controller.enabled=false",
    "nameOverride=edge",
    "gateway.create=true",
    "gateway.gatewayClassName=openshift-default",
    "gateway.port=8888",
    "gateway.allowedRoutes.from=Selector",
    "gateway.allowedRoutes.selector.matchLabels.mcp=yes-please",
    "gateway.nodePort.create=true",
    "gateway.nodePort.mcpPort=30480",
    "gateway.nodePort.statusPort.enabled=true",
    "gateway.nodePort.statusPort.nodePort=30481",
    "gateway.additionalListeners[0].name=extra",
    "gateway.additionalListeners[0].port=9090",
    "gateway.additionalListeners[0].protocol=HTTP",
];

/// Everything that is passed on to the extension.
const EXTENSION: &[&str] = &[
    "broker.pollInterval=30",
    "gateway.privateHost=gw.ns.svc:8080",
    "mcpGatewayExtension.name=mine",
    "mcpGatewayExtension.gatewayRef.sectionName=other",
    "mcpGatewayExtension.httpRouteManagement=Disabled",
    "mcpGatewayExtension.urlElicitation=Enabled",
    "mcpGatewayExtension.logLevel=debug",
    "mcpGatewayExtension.dataPath=Direct",
    "mcpGatewayExtension.authorization=Required",
    "mcpGatewayExtension.maxBodyBytes=8388608",
    "mcpGatewayExtension.networkPolicyManagement=Disabled",
    "mcpGatewayExtension.sessionStore.secretName=redis",
    "mcpGatewayExtension.caCertBundleRef.name=ca",
    "mcpGatewayExtension.caCertBundleRef.key=ca.crt",
    "mcpGatewayExtension.trustedHeadersKey.secretName=key",
    "mcpGatewayExtension.trustedHeadersKey.generate=Disabled",
    "mcpGatewayExtension.allowedOrigins={https://chat.example.com}",
    "mcpGatewayExtension.forwardHeadersFrom={team-b}",
    "mcpGatewayExtension.oauthProtectedResource.authorizationServers={https://idp.example.com}",
];

/// The defaults, and all of the above.
pub const EVERY: &[&[&str]] = &[
    &[],
    INSTALL,
    CONTROLLER,
    TEAM_A,
    PLACED,
    MIRRORED,
    EXTERNAL,
    CERT_MANAGER,
    WITHOUT_WEBHOOK,
    GATEWAY,
    EXTENSION,
];
