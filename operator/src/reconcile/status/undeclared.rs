//! What the cluster's CRDs lack: an operator that is newer than they are leaves such members of a status out, and does
//! not count them when it compares. Learnt from refusals, forgotten after a while, because CRDs are upgraded under a
//! running operator.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::kinds::Kind;

/// After this time a member is tried again.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Members of a status that were refused, by kind and name. Bounded: only names that the operator itself writes.
#[derive(Default)]
pub(crate) struct Undeclared {
    refused: Mutex<BTreeMap<(Kind, String), Instant>>,
}

impl Undeclared {
    /// Remembers that the schema of `kind` does not have `member`.
    pub(super) fn note(&self, kind: Kind, member: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert((kind, member.to_owned()), Instant::now());
    }

    /// `members` without those that the schema of `kind` does not have.
    pub(super) fn without(&self, kind: Kind, mut members: Map<String, Value>) -> Map<String, Value> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, since| since.elapsed() < FORGOTTEN);
        members.retain(|name, _| !refused.contains_key(&(kind, name.clone())));
        members
    }
}

/// The member of the status that the API server's schema does not know, in its own words.
pub(super) fn undeclared(error: &str) -> Option<&str> {
    let (before, _) = error.split_once(": field not declared in schema")?;
    let (_, member) = before.rsplit_once(".status.")?;
    (!member.contains(['.', '['])).then_some(member)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_that_an_older_crd_does_not_have_is_found_in_the_api_servers_words() {
        let said = "ApiError: failed to create typed patch object (ns/weather; mcp.kuadrant.io/v1alpha1, \
            Kind=MCPServerRegistration): .status.era: field not declared in schema:  (Status)";
        assert_eq!(undeclared(said), Some("era"));
        assert_eq!(
            undeclared(".status.conditions[0].x: field not declared in schema"),
            None
        );
        assert_eq!(undeclared("Internal Server Error"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_member_is_left_out_of_its_own_kind_until_it_is_tried_again() {
        let known = Undeclared::default();
        known.note(Kind::Registration, "era");
        let members = Map::from_iter([("era".to_owned(), json!("modern"))]);
        assert!(known.without(Kind::Registration, members.clone()).is_empty());
        assert_eq!(known.without(Kind::Extension, members.clone()), members);
        tokio::time::advance(FORGOTTEN).await;
        assert_eq!(known.without(Kind::Registration, members.clone()), members);
    }
}
