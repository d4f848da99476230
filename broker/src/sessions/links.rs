//! The links that sessions of this process received (data-plane.md 5.5): which server each came from. Bounded for a session, and
//! for all together.

use std::collections::HashMap;
use uuid::Uuid;

/// Links of one session; the oldest make room.
pub(super) const MAX_LINKS: usize = 1000;
/// All of them together, bytes; past it the sessions that got theirs first lose them.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What a link takes beside its texts, about.
const OVERHEAD: usize = 96;

#[derive(Default)]
struct OfSession {
    expires: u64,
    /// When it got the last one, in the order of all.
    touched: u64,
    bytes: usize,
    /// By URI: when it came, in the order of all, and from which server.
    links: HashMap<String, (u64, String)>,
}

impl OfSession {
    fn note(&mut self, uri: &str, touch: u64, server: &str) {
        self.bytes += size(uri, server);
        if let Some((_, former)) = self.links.insert(uri.to_owned(), (touch, server.to_owned())) {
            self.bytes -= size(uri, &former);
        }
    }

    /// Drops the oldest past [`MAX_LINKS`].
    fn shorten(&mut self) {
        let past = self.links.len().saturating_sub(MAX_LINKS);
        let mut touches: Vec<u64> = self.links.values().map(|(touch, _)| *touch).collect();
        touches.sort_unstable();
        let Some(&first) = touches.get(past).filter(|_| past > 0) else {
            return;
        };
        self.links.retain(|_, (touch, _)| *touch >= first);
        let sizes = self.links.iter().map(|(uri, (_, server))| size(uri, server));
        self.bytes = sizes.sum();
    }
}

/// The links, by session.
#[derive(Default)]
pub(super) struct Links {
    sessions: HashMap<Uuid, OfSession>,
    bytes: usize,
    touches: u64,
}

fn size(uri: &str, server: &str) -> usize {
    uri.len() + server.len() + OVERHEAD
}

impl Links {
    /// Notes links of a server to these URIs.
    pub(super) fn add(&mut self, jti: Uuid, expires: u64, (server, uris): (&str, &[String])) {
        let session = self.sessions.entry(jti).or_default();
        let before = session.bytes;
        for uri in uris.iter().skip(uris.len().saturating_sub(MAX_LINKS)) {
            self.touches += 1;
            session.note(uri, self.touches, server);
        }
        (session.expires, session.touched) = (expires, self.touches);
        if session.links.len() > MAX_LINKS {
            session.shorten();
        }
        self.bytes = self.bytes - before + session.bytes;
        if self.bytes > MAX_BYTES {
            self.shed();
        }
    }

    /// Makes room, an eighth of all at once, so that it is not made for every link.
    fn shed(&mut self) {
        let mut order: Vec<(u64, Uuid)> = self.sessions.iter().map(|(jti, of)| (of.touched, *jti)).collect();
        order.sort_unstable();
        for (_, jti) in order {
            if self.bytes <= MAX_BYTES / 8 * 7 {
                break;
            }
            self.forget(jti);
        }
    }

    /// The server that gave the session a link to this URI last.
    pub(super) fn find(&self, jti: Uuid, uri: &str) -> Option<String> {
        let (_, server) = self.sessions.get(&jti)?.links.get(uri)?;
        Some(server.clone())
    }

    /// Drops those of a session.
    pub(super) fn forget(&mut self, jti: Uuid) {
        if let Some(session) = self.sessions.remove(&jti) {
            self.bytes -= session.bytes;
        }
    }

    /// Drops those of sessions that have expired.
    pub(super) fn sweep(&mut self, now: u64) {
        let bytes = &mut self.bytes;
        self.sessions.retain(|_, session| {
            let stays = session.expires > now;
            if !stays {
                *bytes -= session.bytes;
            }
            stays
        });
        self.sessions.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s23_a_session_keeps_its_last_thousand_links() {
        let (mut links, jti) = (Links::default(), Uuid::new_v4());
        let uris: Vec<String> = (0..=MAX_LINKS).map(|number| format!("a:{number}")).collect();
        links.add(jti, 100, ("a", &uris[..MAX_LINKS]));
        assert_eq!(links.find(jti, "a:0").as_deref(), Some("a"));
        // A link that comes again is a new one, and its last server counts.
        links.add(jti, 100, ("b", &uris[..1]));
        links.add(jti, 100, ("a", &uris[MAX_LINKS..]));
        assert_eq!(links.find(jti, "a:0").as_deref(), Some("b"));
        assert_eq!(links.find(jti, "a:1"), None, "the oldest makes room");
        assert_eq!(links.find(jti, "a:1000").as_deref(), Some("a"));
        assert_eq!(links.find(Uuid::new_v4(), "a:1000"), None);
    }

    #[test]
    fn s23_of_one_reply_the_last_thousand_links_stay() {
        let (mut links, jti) = (Links::default(), Uuid::new_v4());
        let uris: Vec<String> = (0..3 * MAX_LINKS).map(|number| format!("a:{number}")).collect();
        links.add(jti, 100, ("a", &uris));
        links.add(jti, 100, ("a", &uris));
        let session = &links.sessions[&jti];
        let of_links: usize = session.links.iter().map(|(uri, (_, from))| size(uri, from)).sum();
        assert_eq!(
            (session.links.len(), session.bytes, links.bytes),
            (MAX_LINKS, of_links, of_links)
        );
        assert_eq!(links.find(jti, &uris[2 * MAX_LINKS - 1]), None);
        assert!(links.find(jti, &uris[2 * MAX_LINKS]).is_some());
    }

    #[test]
    fn d22_links_end_with_their_session() {
        let (mut links, jti) = (Links::default(), Uuid::new_v4());
        links.add(jti, 100, ("a", &["a:1".to_owned()]));
        links.sweep(99);
        assert!(links.find(jti, "a:1").is_some());
        links.sweep(100);
        assert_eq!((links.find(jti, "a:1"), links.bytes), (None, 0));
        links.add(jti, 100, ("a", &["a:1".to_owned()]));
        links.forget(jti);
        assert_eq!((links.find(jti, "a:1"), links.bytes), (None, 0));
    }

    #[test]
    fn s23_past_the_bound_of_all_the_sessions_that_got_theirs_first_lose_them() {
        let mut links = Links::default();
        let large: Vec<String> = (0..MAX_LINKS).map(|number| format!("{number:02048}")).collect();
        let sessions: Vec<Uuid> = (0..40).map(|_| Uuid::new_v4()).collect();
        for jti in &sessions {
            links.add(*jti, 100, ("a", &large));
            assert!(links.bytes <= MAX_BYTES);
        }
        assert_eq!(links.find(sessions[0], &large[0]), None);
        assert!(links.find(sessions[39], &large[0]).is_some());
    }
}
