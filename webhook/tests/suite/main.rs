//! One binary for every test of the webhook.
#![allow(missing_docs)]
