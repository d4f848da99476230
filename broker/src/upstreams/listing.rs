//! All pages of one list of a server, within the limits of data-plane.md 15.1. Who asks for a page is the caller's business:
//! the shared connection, or a session of one client.

use super::items::{CacheHints, ItemKind, KindItems};
use crate::protocol::json::quoted;
use crate::transport::exchange::{self, Answer, ExchangeError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

const PAGE: Duration = Duration::from_secs(30);
const MAX_PAGES: usize = 100;
const MAX_ITEMS: usize = 10_000;
const MAX_LIST_BYTES: usize = exchange::MAX_ANSWER;
/// A larger page is validated beside the workers, bytes.
const LARGE: usize = 64 * 1024;

/// What a list gave.
pub type Listed = Result<KindItems, ListError>;

/// Why a list failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A page failed.
    #[error(transparent)]
    Page(#[from] ExchangeError),
    /// The server gave a cursor that it gave before.
    #[error("repeated cursor")]
    RepeatedCursor,
    /// The whole list took too long.
    #[error("timed out waiting for the whole list")]
    Timeout,
}

/// Somebody who can ask a server for a page.
pub trait Asker: Sync {
    /// Sends a list request with these `params` (JSON text).
    fn ask(&self, kind: ItemKind, params: &str)
    -> impl Future<Output = Result<Answer, ExchangeError>> + Send;
}

/// All pages of one kind.
///
/// # Errors
/// [`ListError`].
pub async fn pages(kind: ItemKind, asker: &impl Asker) -> Listed {
    let mut gathered = Gathered::new(kind);
    let mut cursors = HashSet::new();
    let mut params = "{}".to_owned();
    for _ in 0..MAX_PAGES {
        let page = timeout(PAGE, asker.ask(kind, &params)).await;
        let page = page.map_err(|_| ExchangeError::Timeout("a list page"))?;
        let page = match page {
            // A server that announces resources need not know templates.
            Err(ExchangeError::Rpc(-32601)) if kind == ItemKind::Template => {
                return Ok(gathered.items);
            }
            other => other?,
        };
        let cursor;
        (gathered, cursor) = gathered.with(page.result).await?;
        let Some(cursor) = cursor.filter(|_| !gathered.items.truncated) else {
            return Ok(gathered.items);
        };
        params = format!(r#"{{"cursor":{}}}"#, quoted(&cursor));
        if !cursors.insert(cursor) {
            return Err(ListError::RepeatedCursor);
        }
    }
    gathered.items.truncated = true;
    Ok(gathered.items)
}

/// The pages so far.
struct Gathered {
    kind: ItemKind,
    items: KindItems,
    /// Keys of the items.
    known: HashSet<String>,
    /// Bytes that further definitions may take.
    room: usize,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, default)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    prompts: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    resources: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default, rename = "resourceTemplates")]
    templates: Option<Vec<&'a RawValue>>,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Option<String>,
    #[serde(default, rename = "resultType")]
    result_type: Option<String>,
    #[serde(default, rename = "ttlMs")]
    ttl_ms: Option<u64>,
    #[serde(default, rename = "cacheScope")]
    cache_scope: Option<String>,
}

impl Gathered {
    fn new(kind: ItemKind) -> Self {
        Self {
            kind,
            items: KindItems::default(),
            known: HashSet::new(),
            room: MAX_LIST_BYTES,
        }
    }

    /// These pages and one more, with the next cursor. Large pages are validated by a thread of their own.
    async fn with(mut self, result: Box<RawValue>) -> Result<(Self, Option<String>), ExchangeError> {
        let is_large = result.get().len() > LARGE;
        let taken = move || {
            let cursor = self.take(&result)?;
            Ok((self, cursor))
        };
        if is_large {
            return spawn_blocking(taken)
                .await
                .map_err(|_| ExchangeError::Malformed)?;
        }
        taken()
    }

    /// Takes the items of a page for which there is room. An empty string is a cursor like any other.
    fn take(&mut self, result: &RawValue) -> Result<Option<String>, ExchangeError> {
        let page: Page<'_> = serde_json::from_str(result.get()).map_err(|_| ExchangeError::Malformed)?;
        let items = match self.kind {
            ItemKind::Tool => page.tools,
            ItemKind::Prompt => page.prompts,
            ItemKind::Resource => page.resources,
            ItemKind::Template => page.templates,
        };
        if page.result_type.is_some_and(|kind| kind != "complete") {
            return Err(ExchangeError::Malformed);
        }
        let hints = page.ttl_ms.map(|ttl_ms| CacheHints {
            ttl_ms,
            private: page.cache_scope.as_deref() != Some("public"),
        });
        let found = &mut self.items;
        found.cache = match (found.cache, hints) {
            (Some(before), Some(hints)) => Some(before.joined(hints)),
            (before, hints) => hints.or(before),
        };
        for item in items.ok_or(ExchangeError::Malformed)? {
            let left = self.room.checked_sub(item.get().len());
            let (Some(left), true) = (left, found.items.len() < MAX_ITEMS) else {
                found.truncated = true;
                break;
            };
            self.room = left;
            found.add(self.kind, item.get(), &mut self.known);
        }
        Ok(page.next_cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstreams::items::MAX_DEFINITION;
    use std::sync::Mutex;

    /// A server with these pages.
    struct Pages(Mutex<std::vec::IntoIter<Vec<String>>>);

    impl Pages {
        fn of(pages: Vec<Vec<String>>) -> Self {
            Self(Mutex::new(pages.into_iter()))
        }
    }

    impl Asker for Pages {
        async fn ask(&self, _: ItemKind, _: &str) -> Result<Answer, ExchangeError> {
            let mut pages = self.0.lock().unwrap();
            let tools = pages
                .next()
                .expect("no page is asked for after the last")
                .join(",");
            let left = pages.len();
            let next = if left > 0 {
                format!(r#","nextCursor":"{left}""#)
            } else {
                String::new()
            };
            Ok(Answer {
                result: RawValue::from_string(format!(r#"{{"tools":[{tools}]{next}}}"#)).unwrap(),
                session: None,
                reverse: Vec::new(),
            })
        }
    }

    /// A tool whose definition has this size, bytes.
    fn tool(name: usize, size: usize) -> String {
        let start = format!(r#"{{"name":"t{name}","inputSchema":{{"type":"object"}},"description":""#);
        format!("{start}{}\"}}", "x".repeat(size - start.len() - 2))
    }

    #[tokio::test]
    async fn s23_a_list_has_16_mib_and_what_is_past_them_is_not_served() {
        let pages = |last: Option<usize>| {
            let mut pages: Vec<Vec<String>> = (0..4)
                .map(|page| (0..16).map(|at| tool(page * 16 + at, MAX_DEFINITION)).collect())
                .collect();
            pages.extend(last.map(|size| vec![tool(64, size)]));
            pages
        };
        let listed = async |last| {
            super::pages(ItemKind::Tool, &Pages::of(pages(last)))
                .await
                .unwrap()
        };
        assert_eq!(4 * 16 * MAX_DEFINITION, 16 * 1024 * 1024);
        let all = listed(None).await;
        assert_eq!((all.items.len(), all.truncated), (64, false));
        let more = listed(Some(100)).await;
        assert_eq!((more.items.len(), more.truncated), (64, true));
    }

    #[tokio::test]
    async fn s23_a_list_has_a_hundred_pages() {
        let pages = |count: usize| (0..count).map(|page| vec![tool(page, 100)]).collect();
        let all = super::pages(ItemKind::Tool, &Pages::of(pages(100)))
            .await
            .unwrap();
        assert_eq!((all.items.len(), all.truncated), (100, false));
        let more = super::pages(ItemKind::Tool, &Pages::of(pages(101)))
            .await
            .unwrap();
        assert_eq!((more.items.len(), more.truncated), (100, true));
    }
}
