//! `subscriptions/listen` (data-plane.md 4.7): a stream of the change notices that a client without a session asked for.
//! It is the gateway's own: what servers say of their lists ends at the catalog, and this follows the catalog. What they say of
//! single resources comes from `updates`.

use super::FrontState;
use super::mcp::{Caller, event_stream};
use super::streams::{KEEP_ALIVE, LONGEST, MAX_PER_IDENTITY, MAX_STREAMS, QUIET, changes};
use super::updates::{MAX_URIS, Updates, wanted};
use crate::aggregation::catalog::Catalog;
use crate::aggregation::view::{Selection, View};
use crate::decision::stateless::who;
use crate::decision::{Head, bridge};
use crate::protocol::json::quoted;
use crate::protocol::message::Message;
use crate::protocol::reply::{INTERNAL, INVALID_PARAMS, INVALID_REQUEST, Refusal, result};
use crate::protocol::{header, meta, sse};
use crate::sessions::hairpin::forwarded;
use crate::telemetry::relay_metrics::Direction;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::stream;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// Open streams by caller; the anonymous ones are one.
#[derive(Default)]
pub struct Listeners {
    open: Mutex<HashMap<String, usize>>,
    differences: Mutex<Differences>,
}

/// What the latest catalog changed for whom. Most listeners see the same of it, and one of them finds it out for all.
#[derive(Default)]
struct Differences {
    latest: Weak<Catalog>,
    /// By the catalog before, which is the same one for as long as it is named here, and what is selected of it.
    known: Vec<(Weak<Catalog>, Selection, Vec<&'static str>)>,
}

/// Kinds of listeners whose differences are remembered; others find them out for themselves.
const MAX_KNOWN: usize = 64;

impl Differences {
    fn find(
        &self,
        (before, after): (&Arc<Catalog>, &Arc<Catalog>),
        selection: &Selection,
    ) -> Option<Vec<&'static str>> {
        let same = |weak: &Weak<Catalog>, catalog| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(catalog));
        let known = self.known.iter().filter(|_| same(&self.latest, after));
        let mut known = known.filter(|(catalog, selected, _)| same(catalog, before) && selected == selection);
        known.next().map(|(_, _, methods)| methods.clone())
    }

    fn note(
        &mut self,
        (before, after): (&Arc<Catalog>, &Arc<Catalog>),
        selection: &Selection,
        methods: &[&'static str],
    ) {
        if !std::ptr::eq(self.latest.as_ptr(), Arc::as_ptr(after)) {
            *self = Self {
                latest: Arc::downgrade(after),
                known: Vec::new(),
            };
        }
        if self.known.len() < MAX_KNOWN {
            let found = (Arc::downgrade(before), selection.clone(), methods.to_vec());
            self.known.push(found);
        }
    }
}

impl Listeners {
    fn enter(&self, who: Option<&str>) -> bool {
        let Ok(mut open) = self.open.lock() else {
            return false;
        };
        let all: usize = open.values().sum();
        let limit = if who.is_some() {
            MAX_PER_IDENTITY
        } else {
            MAX_STREAMS
        };
        let count = open.get(who.unwrap_or_default()).copied().unwrap_or(0);
        if all >= MAX_STREAMS || count >= limit {
            return false;
        }
        *open.entry(who.unwrap_or_default().to_owned()).or_default() += 1;
        true
    }

    /// The notices that a caller with this selection gets.
    fn changes(&self, catalogs: (&Arc<Catalog>, &Arc<Catalog>), selection: &Selection) -> Vec<&'static str> {
        let known = self.differences.lock().ok();
        if let Some(methods) = known.and_then(|known| known.find(catalogs, selection)) {
            return methods;
        }
        let methods = changes(catalogs.0, catalogs.1, selection);
        if let Ok(mut known) = self.differences.lock() {
            known.note(catalogs, selection, &methods);
        }
        methods
    }

    fn leave(&self, who: &str) {
        let Ok(mut open) = self.open.lock() else { return };
        if let Some(count) = open.get_mut(who) {
            *count -= 1;
            if *count == 0 {
                open.remove(who);
            }
        }
    }
}

/// What a client wants to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    /// URIs.
    resource_subscriptions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Params {
    notifications: Wanted,
}

impl Wanted {
    fn includes(&self, method: &str) -> bool {
        match method {
            "notifications/tools/list_changed" => self.tools_list_changed,
            "notifications/prompts/list_changed" => self.prompts_list_changed,
            "notifications/resources/list_changed" => self.resources_list_changed,
            _ => false,
        }
    }

    /// The part of it that is honoured, as it is acknowledged; `taken` are the URIs that servers will speak of.
    fn acknowledged(&self, taken: &BTreeSet<String>) -> String {
        let flags = [
            ("toolsListChanged", self.tools_list_changed),
            ("promptsListChanged", self.prompts_list_changed),
            ("resourcesListChanged", self.resources_list_changed),
        ];
        let on = flags.into_iter().filter(|(_, on)| *on);
        let mut members: Vec<String> = on.map(|(name, _)| format!(r#""{name}":true"#)).collect();
        if let Some(asked) = &self.resource_subscriptions {
            let honoured = asked.iter().filter(|uri| taken.contains(*uri));
            let honoured: Vec<String> = honoured.map(|uri| quoted(uri)).collect();
            members.push(format!(r#""resourceSubscriptions":[{}]"#, honoured.join(",")));
        }
        format!("{{{}}}", members.join(","))
    }
}

struct Listener {
    state: Arc<FrontState>,
    who: String,
    /// Raw id of the request.
    id: String,
    wanted: Wanted,
    updates: Updates,
    selection: Selection,
    seen: Arc<Catalog>,
    catalogs: watch::Receiver<Arc<Catalog>>,
    ended: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.state.metrics.client_streams.listen.dec();
        self.state.listeners.leave(&self.who);
    }
}

/// Opens a stream.
///
/// # Errors
/// The refusal.
pub fn open(
    state: &Arc<FrontState>,
    head: &Head,
    caller: Caller,
    message: &Message<'_>,
) -> Result<Response, Refusal> {
    let params: Params = serde_json::from_str(message.params.unwrap_or("{}"))
        .map_err(|_| Refusal::new(200, INVALID_PARAMS, "invalid params.notifications", "params"))?;
    let uris = params.notifications.resource_subscriptions.as_deref();
    let uris = uris.unwrap_or_default();
    if uris.len() > MAX_URIS {
        let what = format!("too many resourceSubscriptions (max {MAX_URIS})");
        return Err(Refusal::new(200, INVALID_PARAMS, what, "params"));
    }
    if !header::accepts(head.get("accept")).sse {
        return Err(Refusal::new(406, INVALID_REQUEST, "not acceptable", "accept"));
    }
    if state.health.is_draining() {
        return Err(Refusal::new(503, INTERNAL, "busy", "draining").retry_after(1));
    }
    let who = who(head, &state.keys);
    if !state.listeners.enter(who.as_deref()) {
        return Err(Refusal::new(429, INTERNAL, "busy", "streams").retry_after(1));
    }
    state.metrics.client_streams.listen.inc();
    let mut catalogs = state.published.subscribe();
    let seen = catalogs.borrow_and_update().clone();
    let view = View::new(&seen, &caller.selection);
    let resources = wanted(&view, uris, state.rules.url_elicitation);
    let caller_of = (&caller.claims, &forwarded(&head.fields));
    let updates = Updates::open(state, caller_of, resources);
    let listener = Listener {
        state: Arc::clone(state),
        who: who.unwrap_or_default(),
        id: message.id.unwrap_or("null").to_owned(),
        wanted: params.notifications,
        updates,
        selection: caller.selection,
        seen,
        catalogs,
        ended: false,
    };
    Ok(event_stream(Body::from_stream(listener.stream())))
}

impl Listener {
    fn stream(self) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold((true, self), async |(begins, mut listener)| {
            let text = if begins {
                listener.acknowledgement().await
            } else {
                listener.next().await?
            };
            Some((Ok(Bytes::from(text)), (false, listener)))
        })
    }

    async fn acknowledgement(&mut self) -> String {
        let taken = self.updates.taken().await;
        let honoured = format!(r#""notifications":{},"#, self.wanted.acknowledged(&taken));
        self.notice("notifications/subscriptions/acknowledged", &honoured)
    }

    /// A notice that carries the id of its request. `members` are further ones of `params`, each with its comma.
    fn notice(&self, method: &str, members: &str) -> String {
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{members}"_meta":{{"{}":{}}}}}}}"#,
            meta::SUBSCRIPTION,
            self.id
        );
        sse::encode(None, &text)
    }

    /// A notice of what has changed.
    fn counted(&self, method: &str, members: &str) -> String {
        let relays = &self.state.metrics.relays;
        relays.notices(method, Direction::ToClient, 1);
        self.notice(method, members)
    }

    /// The next text of the stream; `None` at its end.
    async fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        let closing = self.state.streams.closing.clone();
        let keep_alive = Instant::now() + KEEP_ALIVE;
        loop {
            tokio::select! {
                () = closing.cancelled() => return Some(self.end()),
                updated = self.updates.next() => {
                    let text = self.updated(&updated);
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
                () = sleep_until(keep_alive) => return Some(": keep-alive\n\n".to_owned()),
                changed = self.catalogs.changed() => {
                    if changed.is_err() {
                        return Some(self.end());
                    }
                    self.settle().await;
                    let text = self.changes();
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
            }
        }
    }

    /// Waits until the catalog is quiet.
    async fn settle(&mut self) {
        let end = Instant::now() + LONGEST;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                more = timeout(QUIET, self.catalogs.changed()) => if !matches!(more, Ok(Ok(()))) { return },
            }
        }
    }

    fn changes(&mut self) -> String {
        let latest = self.catalogs.borrow_and_update().clone();
        let listeners = &self.state.listeners;
        let methods = listeners.changes((&self.seen, &latest), &self.selection);
        self.seen = latest;
        let wanted = methods.into_iter().filter(|method| self.wanted.includes(method));
        wanted.map(|method| self.counted(method, "")).collect()
    }

    /// The notices of resources that the caller may still see.
    fn updated(&self, uris: &BTreeSet<String>) -> String {
        let latest = self.state.published.load();
        let view = View::new(&latest, &self.selection);
        let visible = uris.iter().filter(|uri| view.permit_uri(uri).is_some());
        let member = |uri: &String| format!(r#""uri":{},"#, quoted(uri));
        visible
            .map(|uri| self.counted("notifications/resources/updated", &member(uri)))
            .collect()
    }

    /// The orderly end. The specification asks for both in different places: the notice, then the result.
    fn end(&mut self) -> String {
        self.ended = true;
        let cancelled = self.notice("notifications/cancelled", &format!(r#""requestId":{},"#, self.id));
        let tagged = format!(r#"{{"_meta":{{"{}":{}}}}}"#, meta::SUBSCRIPTION, self.id);
        let answer = result(&self.id, &bridge::complete(&tagged, None));
        format!("{cancelled}{}", sse::encode(None, &answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s23_the_streams_of_one_caller_are_bounded_and_counted_back() {
        let listeners = Listeners::default();
        for _ in 0..MAX_PER_IDENTITY {
            assert!(listeners.enter(Some("alice")));
        }
        assert!(!listeners.enter(Some("alice")));
        assert!(listeners.enter(Some("bob")) && listeners.enter(None));
        listeners.leave("alice");
        assert!(listeners.enter(Some("alice")));
    }

    #[test]
    fn what_a_catalog_changed_is_found_out_once_for_those_who_see_the_same() {
        let [first, second, third] = [(); 3].map(|()| Arc::<Catalog>::default());
        let (everybody, shop) = (
            Selection::default(),
            Selection {
                virtual_server: vec!["ns/shop".to_owned()],
                ..Selection::default()
            },
        );
        let mut known = Differences::default();
        known.note((&first, &second), &everybody, &["a"]);
        assert_eq!(known.find((&first, &second), &everybody), Some(vec!["a"]));
        assert_eq!(known.find((&first, &second), &shop), None);
        assert_eq!(known.find((&first, &third), &everybody), None);
        assert_eq!(known.find((&third, &second), &everybody), None);
        known.note((&second, &third), &everybody, &[]);
        assert_eq!(known.find((&second, &third), &everybody), Some(vec![]));
        assert_eq!(known.find((&first, &second), &everybody), None);
        for _ in 0..2 * MAX_KNOWN {
            known.note((&second, &third), &shop, &[]);
        }
        assert_eq!(known.known.len(), MAX_KNOWN);
    }

    #[test]
    fn only_what_is_honoured_is_acknowledged() {
        let text = r#"{"notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["b","a"]}}"#;
        let params: Params = serde_json::from_str(text).unwrap();
        assert_eq!(
            params
                .notifications
                .acknowledged(&BTreeSet::from(["a".to_owned(), "c".to_owned()])),
            r#"{"toolsListChanged":true,"resourceSubscriptions":["a"]}"#
        );
        let none: Params = serde_json::from_str(r#"{"notifications":{}}"#).unwrap();
        assert_eq!(none.notifications.acknowledged(&BTreeSet::new()), "{}");
        assert!(
            !params
                .notifications
                .includes("notifications/prompts/list_changed")
        );
    }
}
