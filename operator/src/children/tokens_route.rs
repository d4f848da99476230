//! HTTPRoute `mcp-gateway-tokens-route` (operator.md 5.7): the page where users hand in tokens.

use mcp_gateway_api::names;

use super::{
    Child,
    route::{managed, rule},
};
use crate::blueprint::Blueprint;

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    managed(blueprint, names::TOKENS_ROUTE, &[rule("/tokens")])
}
