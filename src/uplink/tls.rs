//! TLS with the system's trusted roots.

use std::fs;
use std::sync::Arc;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::typestate::AgentScope;

/// Where distributions keep their bundle of trusted roots: Debian and most
/// others, Fedora, Alpine and the BSDs, SUSE.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// What a client needs for `https://` servers.
#[derive(Clone, Debug)]
pub(super) struct Tls(TlsConfig);

impl Tls {
    /// # Errors
    /// A sentence, when the system has no roots.
    pub(super) fn new() -> Result<Tls, String> {
        let roots = RootCerts::new_with_certs(&system_roots()?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(provider);
        Ok(Tls(config.build()))
    }

    /// Makes a client speak TLS.
    pub(super) fn apply(&self, builder: ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> {
        builder.tls_config(self.0.clone())
    }
}

/// The certificates that this system trusts.
fn system_roots() -> Result<Vec<Certificate<'static>>, String> {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let candidates = named.as_deref().into_iter().chain(BUNDLES);
    let (bundle, pem) = candidates
        .filter_map(|path| Some((path, fs::read(path).ok()?)))
        .next()
        .ok_or_else(|| {
            format!(
                "this system has no trusted certificates: none of {} can be read; install \
                 ca-certificates or name a bundle with SSL_CERT_FILE",
                BUNDLES.join(", ")
            )
        })?;
    let roots: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if roots.is_empty() {
        return Err(format!("{bundle} holds no certificates"));
    }
    Ok(roots)
}
