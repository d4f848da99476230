//! All pages of one list of a server, within the limits of data-plane.md 15.1. Who asks for a page is the caller's business:
//! the shared connection, or a session of one client.

use super::items::{CacheHints, ItemKind, KindItems};
use crate::protocol::json::quoted;
use crate::transport::exchange::{self, Answer, ExchangeError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::timeout;

const PAGE: Duration = Duration::from_secs(30);
const MAX_PAGES: usize = 100;
const MAX_ITEMS: usize = 10_000;
const MAX_LIST_BYTES: usize = exchange::MAX_ANSWER;

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
    let mut found = KindItems::default();
    let mut cursors = HashSet::new();
    let (mut params, mut bytes) = ("{}".to_owned(), 0);
    for _ in 0..MAX_PAGES {
        let page = timeout(PAGE, asker.ask(kind, &params)).await;
        let page = page.map_err(|_| ExchangeError::Timeout("a list page"))?;
        let page = match page {
            // A server that announces resources need not know templates.
            Err(ExchangeError::Rpc(-32601)) if kind == ItemKind::Template => return Ok(found),
            other => other?,
        };
        bytes += page.result.get().len();
        let cursor = take_page(kind, &page.result, &mut found)?;
        let Some(cursor) = cursor else { return Ok(found) };
        if bytes > MAX_LIST_BYTES || found.truncated {
            found.truncated = true;
            return Ok(found);
        }
        params = format!(r#"{{"cursor":{}}}"#, quoted(&cursor));
        if !cursors.insert(cursor) {
            return Err(ListError::RepeatedCursor);
        }
    }
    found.truncated = true;
    Ok(found)
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

/// Adds the items of a page; returns the next cursor. An empty string is a cursor like any other.
fn take_page(
    kind: ItemKind,
    result: &RawValue,
    found: &mut KindItems,
) -> Result<Option<String>, ExchangeError> {
    let page: Page<'_> = serde_json::from_str(result.get()).map_err(|_| ExchangeError::Malformed)?;
    let items = match kind {
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
    found.cache = match (found.cache, hints) {
        (Some(before), Some(hints)) => Some(before.joined(hints)),
        (before, hints) => hints.or(before),
    };
    for item in items.ok_or(ExchangeError::Malformed)? {
        if found.items.len() >= MAX_ITEMS {
            found.truncated = true;
            break;
        }
        found.add(kind, item.get());
    }
    Ok(page.next_cursor)
}
