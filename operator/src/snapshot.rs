//! One moment of the cluster with every verdict about it, and which verdicts differ from an earlier moment.

use std::{collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{
    acceptance::{Accepted, Judgement},
    object_key::ObjectKey,
    resolution::{Plan, Resolution},
    world::{World, route_of},
};

use crate::queue::WorkItem;

/// What a reconcile decides over.
pub(crate) struct Snapshot {
    /// The objects.
    pub(crate) world: Arc<World>,
    /// The verdicts.
    pub(crate) plan: Plan,
    /// How many changes of the world it has seen.
    pub(crate) version: u64,
}

impl Snapshot {
    pub(crate) fn compute((world, version): (Arc<World>, u64), cluster_domain: &str) -> Self {
        let plan = Plan::compute(&world, cluster_domain);
        Self { world, plan, version }
    }

    pub(crate) fn judgement(&self, extension: &ObjectKey) -> Option<&Judgement> {
        self.plan.judgement(extension)
    }

    pub(crate) fn accepted(&self, extension: &ObjectKey) -> Option<&Accepted> {
        self.judgement(extension)?.accepted.as_ref()
    }

    pub(crate) fn resolution(&self, registration: &ObjectKey) -> Option<&Resolution> {
        self.plan.resolution(registration)
    }

    /// Whatever is judged or resolved otherwise than at `former`: a change far away can matter by way of a rival.
    pub(crate) fn changes_since(&self, former: &Self) -> BTreeSet<WorkItem> {
        let mut items = BTreeSet::new();
        for world in [&self.world, &former.world] {
            for extension in world.extensions() {
                let key = ObjectKey::of(&extension.metadata);
                if self.judgement(&key) != former.judgement(&key) {
                    items.insert(WorkItem::Extension(key));
                }
            }
            for registration in world.registrations() {
                let key = ObjectKey::of(&registration.metadata);
                let (now, then) = (self.resolution(&key), former.resolution(&key));
                if now != then {
                    let serving = now
                        .into_iter()
                        .chain(then)
                        .flat_map(|resolution| &resolution.served_by);
                    items.extend(serving.cloned().map(WorkItem::Extension));
                    items.insert(WorkItem::RouteStatus(route_of(registration)));
                    items.insert(WorkItem::Registration(key));
                }
            }
        }
        items
    }
}
