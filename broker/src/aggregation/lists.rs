//! Pages of lists (data-plane.md 4.10). A cursor is the sealed last key, so that a page boundary survives changes.

use super::view::{Selection, View};
use crate::auth::keys::Keys;
use crate::auth::seal;
use crate::protocol::json::quoted;
use crate::upstreams::items::ItemKind;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Mutex;

/// A page ends after this many bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Whole lists that a catalog keeps for those who ask next, bytes.
const MAX_KEPT: usize = 32 * 1024 * 1024;
const CURSOR_LIFE: u64 = 24 * 3600;
const PURPOSE: &str = "list-cursor";

#[derive(Serialize, Deserialize)]
struct Cursor {
    kind: String,
    filter: String,
    last: String,
    exp: u64,
}

/// A cursor that is not ours, is of another list or filter, or is too old: -32602.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor")]
pub struct BadCursor;

/// Settings of paging.
pub struct Paging<'a> {
    /// Keys of the seals.
    pub keys: &'a Keys,
    /// Items in one page.
    pub size: usize,
    /// Unix seconds.
    pub now: u64,
}

/// Whole lists that are the same for all callers of a virtual server, for as long as the catalog is.
#[derive(Default)]
pub struct WholeLists(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    texts: HashMap<Shared, Bytes>,
    bytes: usize,
}

/// What tells such lists apart.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Shared {
    kind: ItemKind,
    virtual_server: Option<String>,
    stateless: bool,
}

impl WholeLists {
    fn get(&self, shared: &Shared) -> Option<Bytes> {
        self.0.lock().ok()?.texts.get(shared).cloned()
    }

    /// Keeps a list where there is room.
    fn keep(&self, shared: Shared, text: &Bytes) {
        let Ok(mut lists) = self.0.lock() else { return };
        if lists.bytes + text.len() <= MAX_KEPT && lists.texts.insert(shared, text.clone()).is_none() {
            lists.bytes += text.len();
        }
    }
}

/// The `result` of one list request.
pub struct Page {
    /// JSON.
    pub text: Bytes,
    /// It had been made for somebody else.
    pub kept: bool,
}

/// One page of a list.
///
/// # Errors
/// [`BadCursor`].
pub fn page(
    view: &View<'_>,
    selection: &Selection,
    kind: ItemKind,
    cursor: Option<&str>,
    paging: &Paging<'_>,
) -> Result<Page, BadCursor> {
    let shared = view.is_shared().then(|| Shared {
        kind,
        virtual_server: selection.virtual_server.first().cloned(),
        stateless: selection.stateless,
    });
    let shared = shared.filter(|_| cursor.is_none());
    let kept = &view.catalog().whole_lists;
    if let Some(text) = shared.as_ref().and_then(|shared| kept.get(shared)) {
        return Ok(Page { text, kept: true });
    }
    let last = cursor
        .map(|text| open(text, kind, selection, paging))
        .transpose()?;
    let (text, next) = gathered(view, kind, last.as_deref(), paging);
    let Some(next) = next else {
        let text = Bytes::from(text + "}");
        if let Some(shared) = shared {
            kept.keep(shared, &text);
        }
        return Ok(Page { text, kept: false });
    };
    let cursor = Cursor {
        kind: kind.word().to_owned(),
        filter: fingerprint(selection),
        last: next.to_owned(),
        exp: paging.now + CURSOR_LIFE,
    };
    let cursor = quoted(&seal::seal(paging.keys, PURPOSE, &cursor));
    let text = format!(r#"{text},"nextCursor":{cursor}}}"#).into();
    Ok(Page { text, kept: false })
}

/// The page without its end, and its last name when there are more.
fn gathered<'a>(
    view: &View<'a>,
    kind: ItemKind,
    last: Option<&str>,
    paging: &Paging<'_>,
) -> (String, Option<&'a str>) {
    let mut entries = view.list(kind, last).peekable();
    let mut text = format!(r#"{{"{}":["#, kind.member());
    let (mut count, mut previous) = (0, None);
    while let Some(entry) = entries.peek() {
        let full =
            count >= paging.size || (count > 0 && text.len() + entry.definition.len() > MAX_PAGE_BYTES);
        if full {
            break;
        }
        if count > 0 {
            text.push(',');
        }
        text.push_str(&entry.definition);
        count += 1;
        previous = Some(entry.published.as_str());
        entries.next();
    }
    text.push(']');
    (text, previous.filter(|_| entries.peek().is_some()))
}

fn open(text: &str, kind: ItemKind, selection: &Selection, paging: &Paging<'_>) -> Result<String, BadCursor> {
    let cursor: Cursor = seal::open(paging.keys, PURPOSE, text).ok_or(BadCursor)?;
    let ours =
        cursor.kind == kind.word() && cursor.filter == fingerprint(selection) && cursor.exp > paging.now;
    ours.then_some(cursor.last).ok_or(BadCursor)
}

fn fingerprint(selection: &Selection) -> String {
    // Who asks, not with which token: a token that is renewed between two pages changes nothing.
    let (issuer, subject) = selection
        .caller
        .as_ref()
        .map_or(("", ""), |caller| caller.subject());
    let text = format!(
        "{:?}\0{:?}\0{:?}\0{issuer}\0{subject}\0{}",
        selection.capabilities, selection.virtual_server, selection.scope, selection.stateless
    );
    mcp_gateway_api::config::hash_of(text.as_bytes())
}
