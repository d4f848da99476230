//! `requestState` between its server and a client without a session (data-plane.md 4.7, S8): sealed, and bound to what it
//! was given for, to whom, and for ten minutes.

use crate::auth::keys::Keys;
use crate::auth::seal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Life of a state, seconds.
pub const LIFE: u64 = 600;
/// Clocks of replicas may differ by this, seconds.
const LEEWAY: u64 = 30;
/// Longest sealed state that is read, bytes.
const MAX_SEALED: usize = 64 * 1024;
const PURPOSE: &str = "request-state";

/// What a state is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Server name.
    #[serde(rename = "s")]
    pub server: String,
    /// Method.
    #[serde(rename = "m")]
    pub method: String,
    /// The server's own name or URI of what is called.
    #[serde(rename = "n")]
    pub name: String,
    /// Who calls; nothing for an anonymous caller.
    #[serde(rename = "b")]
    pub binding: Option<String>,
    /// When it was given, Unix seconds.
    #[serde(rename = "t")]
    pub now: u64,
    /// New for each request, so that no two states are equal.
    #[serde(rename = "x")]
    pub nonce: Uuid,
}

/// What travels.
#[derive(Serialize, Deserialize)]
pub struct Sealed {
    #[serde(rename = "r")]
    round: Round,
    #[serde(rename = "v")]
    state: String,
}

impl Round {
    /// The state as the client gets it.
    pub fn seal(&self, keys: &Keys, state: String) -> String {
        let round = self.clone();
        seal::seal(keys, PURPOSE, &Sealed { round, state })
    }

    /// The server's state out of what a client sent with the request that this round is; `None` for anything else.
    pub fn open(&self, keys: &Keys, sealed: &str) -> Option<String> {
        let Sealed { round, state } = seal::open_long(keys, PURPOSE, sealed, MAX_SEALED)?;
        let in_time =
            round.now <= self.now.saturating_add(LEEWAY) && self.now < round.now.saturating_add(LIFE);
        let same = Self {
            now: self.now,
            nonce: self.nonce,
            ..round
        } == *self;
        (in_time && same).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn round(now: u64) -> Round {
        Round {
            server: "ns/one".to_owned(),
            method: "tools/call".to_owned(),
            name: "ask".to_owned(),
            binding: Some("alice".to_owned()),
            now,
            nonce: Uuid::new_v4(),
        }
    }

    #[test]
    fn s8_a_request_state_opens_for_its_call_and_caller_within_its_time() {
        let keys = Keys::new(Secret::new("k"), None);
        let sealed = round(100).seal(&keys, "state".to_owned());
        assert_ne!(
            sealed,
            round(100).seal(&keys, "state".to_owned()),
            "never twice the same"
        );
        assert_eq!(round(699).open(&keys, &sealed).as_deref(), Some("state"));
        let mut others = [
            round(700),
            round(69),
            round(100),
            round(100),
            round(100),
            round(100),
        ];
        others[2].server = "ns/two".to_owned();
        others[3].method = "prompts/get".to_owned();
        others[4].name = "other".to_owned();
        others[5].binding = None;
        for other in others {
            assert_eq!(other.open(&keys, &sealed), None, "{other:?}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(round(100).open(&keys, &changed), None, "byte {at}");
        }
    }
}
