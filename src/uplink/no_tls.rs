//! In place of TLS, where the program is built without.

use super::TlsFiles;
use std::io;
use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;

/// What a client would need for `https://` servers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tls {}

impl Tls {
    /// # Errors
    /// Always.
    pub(super) fn new(_: &TlsFiles) -> Result<Tls, String> {
        Err(
            "this program was built without TLS: server_address and a proxy have to be http:// \
             ones, or use a build with the feature `tls`"
                .into(),
        )
    }

    pub(super) fn apply(self, _: ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> {
        match self {}
    }
}

/// Connections as they are.
pub(super) fn above<C>(connector: C) -> C {
    connector
}

pub(super) fn explain(_: &io::Error) -> Option<String> {
    None
}
