//! Pages of lists (data-plane.md 4.10). A cursor is the sealed last key, so that a page boundary survives changes.

use super::view::{Selection, View};
use crate::auth::keys::Keys;
use crate::auth::seal;
use crate::protocol::json::quoted;
use crate::upstreams::items::ItemKind;
use serde::{Deserialize, Serialize};

/// A page ends after this many bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
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

/// The `result` of one list request as JSON text.
///
/// # Errors
/// [`BadCursor`].
pub fn page(
    view: &View<'_>,
    selection: &Selection,
    kind: ItemKind,
    cursor: Option<&str>,
    paging: &Paging<'_>,
) -> Result<String, BadCursor> {
    let filter = fingerprint(selection);
    let last = cursor.map(|text| open(text, kind, &filter, paging)).transpose()?;
    let mut entries = view.list(kind, last.as_deref()).peekable();
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
    if let (Some(_), Some(last)) = (entries.peek(), previous) {
        let cursor = Cursor {
            kind: kind.word().to_owned(),
            filter,
            last: last.to_owned(),
            exp: paging.now + CURSOR_LIFE,
        };
        text.push_str(&format!(
            r#","nextCursor":{}"#,
            quoted(&seal::seal(paging.keys, PURPOSE, &cursor))
        ));
    }
    text.push('}');
    Ok(text)
}

fn open(text: &str, kind: ItemKind, filter: &str, paging: &Paging<'_>) -> Result<String, BadCursor> {
    let cursor: Cursor = seal::open(paging.keys, PURPOSE, text).ok_or(BadCursor)?;
    let ours = cursor.kind == kind.word() && cursor.filter == filter && cursor.exp > paging.now;
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
