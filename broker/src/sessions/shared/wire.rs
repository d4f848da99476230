//! How a session stands in the store: keys, fields, events, and the scripts that write them (data-plane.md 12).

use crate::sessions::record::{BackendSession, Record, SessionEvent, StoreError};
use redis::Script;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Channel of all replicas.
pub(super) const CHANNEL: &str = "mcpgw:ev";
/// Words of events about questions of servers.
const ANSWERED: &str = "answered";
const REFUSED: &str = "refused";

/// KEYS: session, revocation. ARGV: end, channel, event, field, value. Sets a field unless the session was ended.
const SET: &str = r"
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
redis.call('EXPIREAT', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return redis.call('HGETALL', KEYS[1])";
/// As above, but removes the field.
const UNSET: &str = r"
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
redis.call('HDEL', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return redis.call('HGETALL', KEYS[1])";
/// As `SET`, but keeps a value that is there and returns the one that is there afterwards.
const SET_ONCE: &str = r"
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
if redis.call('HSETNX', KEYS[1], ARGV[4], ARGV[5]) == 1 then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
redis.call('EXPIREAT', KEYS[1], ARGV[1])
return redis.call('HGET', KEYS[1], ARGV[4])";
/// KEYS: session. ARGV: channel, event, field, value, notice. Removes a field that still has this value.
const FORGET: &str = r"
if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[4] then return 0 end
redis.call('PUBLISH', ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[1], ARGV[5])
return redis.call('HDEL', KEYS[1], ARGV[3])";
/// KEYS: links, their order, revocation. ARGV: end, most, server, URIs. Notes links, the last ones that there is room for; the
/// clock of the store gives the order, because it is that of all replicas.
const LINK: &str = r"
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local time = redis.call('TIME')
for at = 4, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[3])
  redis.call('ZADD', KEYS[2], time[1] * 1000000 + time[2] + at, ARGV[at])
end
local past = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[2])
if past > 0 then
  for _, uri in ipairs(redis.call('ZRANGE', KEYS[2], 0, past - 1)) do redis.call('HDEL', KEYS[1], uri) end
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, past - 1)
end
redis.call('EXPIREAT', KEYS[1], ARGV[1])
redis.call('EXPIREAT', KEYS[2], ARGV[1])
return 1";
/// KEYS: session, revocation, links, their order. ARGV: end, channel, event. Ends a session and returns what it was.
const REVOKE: &str = r"
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
redis.call('SET', KEYS[2], '1')
redis.call('EXPIREAT', KEYS[2], ARGV[1])
local fields = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return fields";
/// KEYS: lock. ARGV: owner.
const UNLOCK: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// Writes that are one step for everybody.
pub(super) struct Scripts {
    pub(super) set: Script,
    pub(super) unset: Script,
    pub(super) set_once: Script,
    pub(super) forget: Script,
    pub(super) revoke: Script,
    pub(super) link: Script,
    pub(super) unlock: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            set: Script::new(SET),
            unset: Script::new(UNSET),
            set_once: Script::new(SET_ONCE),
            forget: Script::new(FORGET),
            revoke: Script::new(REVOKE),
            link: Script::new(LINK),
            unlock: Script::new(UNLOCK),
        }
    }
}

pub(super) fn session_key(jti: Uuid) -> String {
    format!("mcpgw:s:{jti}")
}

pub(super) fn revoked_key(jti: Uuid) -> String {
    format!("mcpgw:revoked:{jti}")
}

/// Server by URI.
pub(super) fn links_key(jti: Uuid) -> String {
    format!("mcpgw:links:{jti}")
}

/// URIs in the order in which they came.
pub(super) fn link_order_key(jti: Uuid) -> String {
    format!("mcpgw:links:{jti}:order")
}

pub(super) fn lock_key(jti: Uuid, server: &str) -> String {
    format!("mcpgw:lock:{jti}:{server}")
}

pub(super) fn elicitation_key(id: Uuid) -> String {
    format!("mcpgw:elic:{id}")
}

pub(super) fn backend_field(server: &str) -> String {
    format!("b:{server}")
}

pub(super) fn token_field(server: &str) -> String {
    format!("token:{server}")
}

pub(super) fn encoded(backend: &BackendSession) -> Result<String, StoreError> {
    serde_json::to_string(backend).map_err(|_| StoreError::Unavailable)
}

/// A hash as a record; what does not parse is not there.
pub(super) fn read(fields: BTreeMap<String, String>) -> Record {
    let mut record = Record::default();
    for (name, value) in fields {
        match (name.split_once(':'), name.as_str()) {
            (Some(("b", server)), _) => {
                if let Ok(backend) = serde_json::from_str(&value) {
                    record.backends.insert(server.to_owned(), backend);
                }
            }
            (Some(("token", server)), _) => drop(record.tokens.insert(server.to_owned(), value)),
            (Some(("subs", subscription)), _) => {
                if let Ok(subscription) = serde_json::from_str(subscription) {
                    record.subscriptions.insert(subscription);
                }
            }
            (None, "last") => record.last = Some(value),
            (None, "level") => record.level = Some(value),
            (None, "scope") => record.scope = serde_json::from_str(&value).ok().map(Arc::new),
            _ => {}
        }
    }
    record
}

/// The notice that a backend session is over though its client session goes on: the replica that opened it counts it.
pub(super) fn forgotten_text(
    jti: Uuid,
    server: &str,
    backend: &BackendSession,
) -> Result<String, StoreError> {
    let what = serde_json::to_string(&(server, backend)).map_err(|_| StoreError::Unavailable)?;
    Ok(format!("forgotten {jti} {what}"))
}

/// What such a notice says.
pub(super) fn forgotten_of(text: &str) -> Option<(Uuid, String, BackendSession)> {
    let (jti, what) = text.strip_prefix("forgotten ")?.split_once(' ')?;
    let (server, backend) = serde_json::from_str(what).ok()?;
    Some((jti.parse().ok()?, server, backend))
}

pub(super) fn text_of(event: SessionEvent) -> String {
    match event {
        SessionEvent::Ended(jti) => format!("ended {jti}"),
        SessionEvent::Scope(jti) => format!("scope {jti}"),
        SessionEvent::Changed(jti) => format!("changed {jti}"),
        SessionEvent::Answered(tag, good) => format!("{} {tag}", if good { ANSWERED } else { REFUSED }),
    }
}

pub(super) fn event_of(text: &str) -> Option<SessionEvent> {
    let (word, what) = text.split_once(' ')?;
    if let ANSWERED | REFUSED = word {
        return Some(SessionEvent::Answered(what.parse().ok()?, word == ANSWERED));
    }
    let jti = what.parse().ok()?;
    match word {
        "ended" => Some(SessionEvent::Ended(jti)),
        "scope" => Some(SessionEvent::Scope(jti)),
        "changed" => Some(SessionEvent::Changed(jti)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_are_written() {
        let jti = Uuid::new_v4();
        for event in [
            SessionEvent::Ended(jti),
            SessionEvent::Scope(jti),
            SessionEvent::Changed(jti),
            SessionEvent::Answered(u64::MAX, true),
            SessionEvent::Answered(0, false),
        ] {
            assert_eq!(event_of(&text_of(event)), Some(event));
        }
        let backend = BackendSession {
            id: Some("a b".to_owned()),
            ..BackendSession::stateless()
        };
        let notice = forgotten_text(jti, "of a file", &backend).unwrap();
        assert_eq!(event_of(&notice), None);
        assert_eq!(
            forgotten_of(&notice),
            Some((jti, "of a file".to_owned(), backend))
        );
        assert_eq!(event_of("ended x"), None);
        assert_eq!(event_of(&format!("other {jti}")), None);
    }

    #[test]
    fn a_record_is_read_field_by_field() {
        let fields = [
            ("b:ns/a", r#"{"id":"1","version":"2025-11-25","logging":true}"#),
            ("b:ns/bad", "{"),
            ("token:ns/a", "c2VhbGVk"),
            ("level", "debug"),
            ("scope", r#"["x"]"#),
            (r#"subs:["ns/a","file:///a:b"]"#, "1"),
            ("last", "ns/a"),
            ("later", "?"),
        ];
        let record = read(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        );
        assert_eq!(record.backends.keys().collect::<Vec<_>>(), ["ns/a"]);
        assert_eq!(record.tokens.get("ns/a").map(String::as_str), Some("c2VhbGVk"));
        assert_eq!(record.level.as_deref(), Some("debug"));
        assert_eq!(record.last.as_deref(), Some("ns/a"));
        assert!(
            record
                .subscriptions
                .contains(&("ns/a".to_owned(), "file:///a:b".to_owned()))
        );
        assert_eq!(record.scope.as_deref(), Some(&vec!["x".to_owned()]));
    }
}
