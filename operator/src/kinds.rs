//! The kinds that the operator watches or writes: group, version, plural, and which part of them is watched.

use kube::core::{ApiResource, GroupVersionKind};
use mcp_gateway_api::{intake, names, webhooks::supplementary::ConfigurationKind};

/// Every kind that the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Extension,
    Registration,
    VirtualServer,
    AuthPolicy,
    Gateway,
    ReferenceGrant,
    HttpRoute,
    Namespace,
    Secret,
    ConfigMap,
    Service,
    ServiceAccount,
    Role,
    RoleBinding,
    NetworkPolicy,
    Deployment,
    PodDisruptionBudget,
    EndpointSlice,
    EnvoyFilter,
    ValidatingWebhooks,
    MutatingWebhooks,
}

/// What a watch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Whole objects.
    All,
    /// Whole objects with this name.
    Named(&'static str),
    /// Whole objects with this label.
    Labelled(&'static str),
    /// Metadata of all objects.
    Metadata,
}

impl Kind {
    /// Every kind, in the order in which watches start.
    pub(crate) const ALL: [Self; 21] = [
        Self::Extension,
        Self::Registration,
        Self::VirtualServer,
        Self::AuthPolicy,
        Self::Gateway,
        Self::ReferenceGrant,
        Self::HttpRoute,
        Self::Namespace,
        Self::Secret,
        Self::ConfigMap,
        Self::Service,
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::NetworkPolicy,
        Self::Deployment,
        Self::PodDisruptionBudget,
        Self::EndpointSlice,
        Self::EnvoyFilter,
        Self::ValidatingWebhooks,
        Self::MutatingWebhooks,
    ];

    /// Name of the kind as objects carry it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        self.parts().2
    }

    /// The API resources to try, the preferred one first.
    pub(crate) fn resources(self) -> Vec<ApiResource> {
        let (group, versions, kind, plural) = self.parts();
        versions
            .iter()
            .map(|version| {
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
            })
            .collect()
    }

    /// The API resource that writes use: the first of [`Kind::resources`].
    pub(crate) fn resource(self) -> ApiResource {
        let (group, versions, kind, plural) = self.parts();
        let version = versions.first().copied().unwrap_or("v1");
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// `apiVersion` of bodies.
    pub(crate) fn api_version(self) -> String {
        self.resource().api_version
    }

    /// True for the kinds that live in no namespace.
    pub(crate) fn is_cluster_scoped(self) -> bool {
        matches!(
            self,
            Self::Namespace | Self::ValidatingWebhooks | Self::MutatingWebhooks
        )
    }

    /// True for a kind that the operator does without where its role, one of before, does not allow to watch it.
    pub(crate) fn is_dispensable(self) -> bool {
        self == Self::PodDisruptionBudget
    }

    /// Which part of the kind is watched: children by their fixed name, so that foreign objects in the way are seen
    /// as well; contents of Secrets and ConfigMaps never (operator.md 4.7).
    pub(crate) fn watched(self) -> Watched {
        match self {
            Self::Secret
            | Self::ConfigMap
            | Self::Namespace
            | Self::ValidatingWebhooks
            | Self::MutatingWebhooks => Watched::Metadata,
            Self::ServiceAccount
            | Self::Role
            | Self::RoleBinding
            | Self::NetworkPolicy
            | Self::Deployment => Watched::Named(names::BROKER),
            Self::EndpointSlice => Watched::Labelled("kubernetes.io/service-name=mcp-gateway"),
            _ => Watched::All,
        }
    }

    /// Group, versions (preferred first), kind, plural.
    fn parts(self) -> (&'static str, &'static [&'static str], &'static str, &'static str) {
        const V1: &[&str] = &["v1"];
        const ADMISSION: &str = "admissionregistration.k8s.io";
        let configurations = |kind: ConfigurationKind| (ADMISSION, V1, kind.as_str(), kind.plural());
        let judged = |kind: intake::Watched| {
            let served = kind.served_as();
            (served.group, served.versions, kind.name(), served.plural)
        };
        match self {
            Self::Extension => judged(intake::Watched::Extension),
            Self::Registration => judged(intake::Watched::Registration),
            Self::VirtualServer => judged(intake::Watched::VirtualServer),
            Self::AuthPolicy => judged(intake::Watched::Policy),
            Self::Gateway => judged(intake::Watched::Gateway),
            Self::ReferenceGrant => judged(intake::Watched::ReferenceGrant),
            Self::HttpRoute => judged(intake::Watched::HttpRoute),
            Self::Namespace => judged(intake::Watched::Namespace),
            Self::Secret => ("", V1, "Secret", "secrets"),
            Self::ConfigMap => ("", V1, "ConfigMap", "configmaps"),
            Self::Service => ("", V1, "Service", "services"),
            Self::ServiceAccount => ("", V1, "ServiceAccount", "serviceaccounts"),
            Self::Role => ("rbac.authorization.k8s.io", V1, "Role", "roles"),
            Self::RoleBinding => ("rbac.authorization.k8s.io", V1, "RoleBinding", "rolebindings"),
            Self::NetworkPolicy => ("networking.k8s.io", V1, "NetworkPolicy", "networkpolicies"),
            Self::Deployment => ("apps", V1, "Deployment", "deployments"),
            Self::PodDisruptionBudget => ("policy", V1, "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::EndpointSlice => ("discovery.k8s.io", V1, "EndpointSlice", "endpointslices"),
            Self::EnvoyFilter => (
                "networking.istio.io",
                &["v1alpha3"],
                "EnvoyFilter",
                "envoyfilters",
            ),
            Self::ValidatingWebhooks => configurations(ConfigurationKind::Validating),
            Self::MutatingWebhooks => configurations(ConfigurationKind::Mutating),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn the_core_group_has_no_slash() {
        assert_eq!(Kind::Secret.api_version(), "v1");
        assert_eq!(Kind::Extension.api_version(), "mcp.kuadrant.io/v1alpha1");
    }
}
