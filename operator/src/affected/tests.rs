use serde_json::json;

use super::*;
use crate::{fixtures::Objects, snapshot::Snapshot};

fn world() -> Objects {
    Objects::default()
        .gateway_and_extension()
        .put(Kind::Namespace, "/apps", &json!({}))
        .server(
            "apps/one",
            1,
            &json!({"credentialRef": {"name": "token", "key": "token"}}),
        )
        .listed(Kind::Registration)
        .listed(Kind::Extension)
}

fn on(kind: Kind, key: &str) -> BTreeSet<WorkItem> {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    affected(&world().0.world(), kind, &ObjectKey::new(namespace, name), None)
}

fn extension() -> WorkItem {
    WorkItem::Extension(ObjectKey::new("team", "ext"))
}

fn registration() -> WorkItem {
    WorkItem::Registration(ObjectKey::new("apps", "one"))
}

#[test]
fn t11_a_grant_re_evaluates_everything_whose_reference_goes_into_its_namespace() {
    let items = on(Kind::ReferenceGrant, "infra/any");
    assert!(
        items.contains(&extension()) && items.contains(&registration()),
        "{items:?}"
    );
    assert!(on(Kind::ReferenceGrant, "apps/any").contains(&registration()));
    assert!(!on(Kind::ReferenceGrant, "elsewhere/any").contains(&extension()));
}

#[test]
fn t15_namespace_labels_and_listeners_re_evaluate_directly() {
    let gateway = on(Kind::Gateway, "infra/gw");
    assert!(
        gateway.contains(&extension()) && gateway.contains(&registration()),
        "{gateway:?}"
    );
    assert!(on(Kind::Namespace, "/apps").contains(&registration()));
    assert!(on(Kind::Namespace, "/team").contains(&extension()));
}

#[test]
fn t16_a_service_re_evaluates_the_registrations_behind_whose_routes_it_is() {
    let items = on(Kind::Service, "apps/one");
    assert!(
        items.contains(&registration()) && items.contains(&extension()),
        "{items:?}"
    );
    assert!(
        on(Kind::Service, "infra/gw-istio").contains(&extension()),
        "private host"
    );
}

#[test]
fn our_entries_in_routes_follow_the_extension_and_its_gateway() {
    let status = WorkItem::RouteStatus(ObjectKey::new("apps", "one"));
    for (kind, key) in [
        (Kind::Extension, "team/ext"),
        (Kind::Gateway, "infra/gw"),
        (Kind::ReferenceGrant, "apps/any"),
        (Kind::Service, "apps/one"),
    ] {
        assert!(on(kind, key).contains(&status), "{kind:?}");
    }
}

#[test]
fn t11_a_grant_re_evaluates_the_extension_whose_broker_foreign_routes_lead_to() {
    assert!(on(Kind::ReferenceGrant, "team/any").contains(&extension()));
}

#[test]
fn t30_a_secret_re_evaluates_whoever_names_it() {
    let items = on(Kind::Secret, "apps/token");
    assert!(
        items.contains(&registration()) && items.contains(&extension()),
        "{items:?}"
    );
    assert!(on(Kind::Secret, "team/mcp-gateway-session-signing-key").contains(&extension()));
    assert!(on(Kind::Secret, "apps/other").is_empty());
}

#[test]
fn t28_children_re_evaluate_their_extension() {
    for kind in [
        Kind::Deployment,
        Kind::Role,
        Kind::NetworkPolicy,
        Kind::PodDisruptionBudget,
        Kind::ServiceAccount,
    ] {
        assert!(on(kind, "team/mcp-gateway").contains(&extension()), "{kind:?}");
    }
    assert!(on(Kind::EnvoyFilter, "infra/mcp-ext-proc-team-gateway").contains(&extension()));
    assert!(on(Kind::HttpRoute, "team/mcp-gateway-route").contains(&extension()));
    assert!(on(Kind::EndpointSlice, "team/mcp-gateway-x").contains(&WorkItem::Brokers("team".to_owned())));
}

#[test]
fn t38_a_change_counts_for_the_old_relations_as_well() {
    let objects = world();
    let moved = json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPServerRegistration",
        "metadata": {"namespace": "apps", "name": "one", "resourceVersion": "2"},
        "spec": {"targetRef": {"name": "nowhere"}}});
    let items = objects
        .0
        .apply(Kind::Registration, &ObjectKey::new("apps", "one"), moved);
    assert!(
        items.contains(&extension()),
        "the extension that served it before: {items:?}"
    );
    assert!(items.contains(&WorkItem::RouteStatus(ObjectKey::new("apps", "one"))));
}

#[test]
fn own_status_writes_and_bookkeeping_trigger_nothing() {
    let objects = world();
    let key = ObjectKey::new("team", "ext");
    let mut stored = objects.0.get(Kind::Extension, &key).expect("stored");
    stored["metadata"]["resourceVersion"] = json!("2");
    stored["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    stored["status"] = json!({"conditions": []});
    let world = objects.0.world();
    assert!(objects.0.apply(Kind::Extension, &key, stored).is_empty());
    assert!(
        std::sync::Arc::ptr_eq(&world, &objects.0.world()),
        "no verdict is computed again"
    );
    let seen = objects.0.get(Kind::Extension, &key).expect("stored");
    assert_eq!(seen["metadata"]["resourceVersion"], "2");
}

#[test]
fn a_changed_registration_concerns_rivals_on_its_own_gateway_only() {
    let route = |gateway: &str| {
        let parent = json!({"name": gateway, "namespace": "infra"});
        json!({"spec": {"parentRefs": [parent]}, "status": {"parents": [
            {"controllerName": "istio.io/gateway-controller", "parentRef": parent, "conditions": []}]}})
    };
    let same = json!({"prefix": "one_"});
    let objects = world()
        .server("apps/near", 2, &same)
        .server("apps/far", 2, &same)
        .put(Kind::HttpRoute, "apps/far", &route("elsewhere"));
    let items = affected(
        &objects.0.world(),
        Kind::Registration,
        &ObjectKey::new("apps", "one"),
        None,
    );
    let concerns = |name: &str| items.contains(&WorkItem::Registration(ObjectKey::new("apps", name)));
    assert!(
        concerns("one") && concerns("near") && !concerns("far"),
        "{items:?}"
    );
}

#[test]
fn o4_a_changed_webhook_configuration_or_certificate_is_looked_at_at_once() {
    let world = World::default();
    let of = |kind, key: &ObjectKey, object: Value| affected(&world, kind, key, Some(&object));
    let both: BTreeSet<_> = [WorkItem::WebhookCertificates, WorkItem::SupplementaryWebhooks].into();
    let ours = ObjectKey::new("", "mcp-gateway-webhook");
    assert_eq!(of(Kind::MutatingWebhooks, &ours, json!({})), both);
    let made_by_olm = json!({"metadata": {"labels": {"olm.owner.namespace": "mcp-system"}}});
    let other = ObjectKey::new("", "defaults.mcp.kuadrant.io-abcde");
    assert_eq!(of(Kind::ValidatingWebhooks, &other, made_by_olm), both);
    assert!(of(Kind::ValidatingWebhooks, &other, json!({"metadata": {}})).is_empty());
    let secret = ObjectKey::new("mcp-system", "mcp-gateway-webhook-cert");
    let expected = [WorkItem::WebhookCertificates].into();
    assert_eq!(of(Kind::Secret, &secret, json!({})), expected);
}

#[test]
fn t5_the_next_in_line_is_judged_anew_when_the_winner_goes_moves_or_turns_invalid() {
    let next = ObjectKey::new("later", "ext");
    let winner = ObjectKey::new("team", "ext");
    let target = |gateway: &str, section: &str| json!({"targetRef": {"name": gateway, "namespace": "infra", "sectionName": section}});
    let end: [(&str, Option<Value>); 4] = [
        ("deleted", None),
        (
            "moved to another Gateway",
            Some(json!({"spec": target("other", "mcp")})),
        ),
        (
            "moved to a listener that is not there",
            Some(json!({"spec": target("gw", "none")})),
        ),
        (
            "terminating",
            Some(
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:02:00Z"}, "spec": target("gw", "mcp")}),
            ),
        ),
    ];
    for (what, change) in end {
        let grant = json!({"spec": {
            "from": [{"group": "mcp.kuadrant.io", "kind": "MCPGatewayExtension", "namespace": "later"}],
            "to": [{"group": "gateway.networking.k8s.io", "kind": "Gateway"}],
        }});
        let objects = world().put(Kind::ReferenceGrant, "infra/later", &grant).put_at(
            Kind::Extension,
            "later/ext",
            30,
            &json!({"spec": target("gw", "mcp")}),
        );
        let judged = || Snapshot::compute(objects.0.versioned_world(), "cluster.local");
        let before = judged();
        assert!(
            before.accepted(&winner).is_some() && before.accepted(&next).is_none(),
            "{what}"
        );
        let items = match change {
            None => objects.0.delete(Kind::Extension, &winner),
            Some(change) => {
                let mut stored = objects.0.get(Kind::Extension, &winner).expect("stored");
                stored["metadata"]["deletionTimestamp"] = change["metadata"]["deletionTimestamp"].clone();
                stored["spec"] = change["spec"].clone();
                objects.0.apply(Kind::Extension, &winner, stored)
            }
        };
        assert!(
            items.contains(&WorkItem::Extension(next.clone())),
            "{what}: {items:?}"
        );
        assert!(judged().accepted(&next).is_some(), "{what}");
    }
}
