//! TLS: whom to trust, whom to be, and what went wrong.

use super::TlsFiles;
use crate::sys::files;
use crate::warning;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, RootCertStore};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};
use ureq::typestate::AgentScope;
use ureq::unversioned::transport::{Connector, RustlsConnector, Transport};

/// Where distributions keep their bundle of trusted roots: Debian and most
/// others, Fedora, Alpine and the BSDs, SUSE.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// No bundle of certificates has more bytes than this.
const LARGEST: u64 = 16 << 20;

/// What a client needs for `https://` servers.
#[derive(Clone, Debug)]
pub(super) struct Tls(TlsConfig);

impl Tls {
    /// # Errors
    /// A sentence, when a file is not what it should be.
    pub(super) fn new(files: &TlsFiles) -> Result<Tls, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(roots(files)?)
            .unversioned_rustls_crypto_provider(Arc::clone(&provider));
        if let Some(identity) = identity(files, provider)? {
            config = config.client_cert(Some(identity));
        }
        Ok(Tls(config.build()))
    }

    /// Makes a client speak TLS.
    pub(super) fn apply(&self, builder: ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> {
        builder.tls_config(self.0.clone())
    }
}

/// Puts TLS on top of connections, for those that want it.
pub(super) fn above<T: Transport>(
    connector: impl Connector<(), Out = T>,
) -> impl Connector<(), Out = impl Transport> {
    connector.chain(RustlsConnector::default())
}

/// Whom to trust: the system's roots and the lab's own; where there are neither,
/// those of the web that are built in.
fn roots(files: &TlsFiles) -> Result<RootCerts, String> {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let bundle = named.as_deref().into_iter().chain(BUNDLES);
    let bundle = bundle.map(Path::new).find(|path| path.exists());
    let mut trusted = Vec::new();
    // Of the system's, what cannot be used is left out later; and a bundle that
    // is none is as good as none.
    match bundle.map(parsed) {
        Some(Ok(found)) => trusted.extend(found),
        Some(Err(error)) => warning!("{error}; going on without the system's certificates"),
        None => {}
    }
    if let Some(path) = files.ca_certificate.as_deref() {
        let mut store = RootCertStore::empty();
        for (certificate, number) in parsed(path)?.into_iter().zip(1..) {
            if store.add(certificate.clone()).is_err() {
                let name = path.display();
                return Err(format!(
                    "{name} is broken: certificate {number} in it is none"
                ));
            }
            trusted.push(certificate);
        }
    }
    let trusted: Vec<_> = trusted
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    Ok(match trusted.as_slice() {
        [] => RootCerts::WebPki,
        trusted => RootCerts::new_with_certs(trusted),
    })
}

/// The certificates in a file; at least one.
fn parsed(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let pem =
        files::read_named(path, LARGEST).map_err(|error| format!("cannot read {name}: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{name} holds no certificate in PEM form")),
        Err(_) => Err(format!(
            "{name} is broken: a certificate in it is cut short or not in PEM form"
        )),
    }
}

/// Whom to be.
fn identity(files: &TlsFiles, provider: Arc<CryptoProvider>) -> Result<Option<ClientCert>, String> {
    let (certificate, key) = match (&files.client_certificate, &files.client_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err("client_certificate and client_key need each other".into()),
    };
    let chain = parsed(certificate)?;
    let name = key.display();
    let pem =
        files::read_named(key, LARGEST).map_err(|error| format!("cannot read {name}: {error}"))?;
    let holds = |words: &[u8]| pem.windows(words.len()).any(|found| found == words);
    if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(format!(
            "{name} is encrypted, and there is nobody to ask for its passphrase; `openssl pkey` \
             makes one that is not"
        ));
    }
    let secret = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("{name} holds no private key (PKCS#8, PKCS#1 or SEC1 in PEM form)"))?;
    // The client below takes them as they are: whether they belong together is
    // found out here.
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain.clone(), secret)
        .map_err(|error| {
            let certificate = certificate.display();
            format!("{name} cannot be used with {certificate}: {error}")
        })?;
    let chain: Vec<_> = chain
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    let secret = PrivateKey::from_pem(&pem).map_err(|error| format!("{name}: {error}"))?;
    Ok(Some(ClientCert::new_with_certs(&chain, secret)))
}

/// What is wrong with the server's certificate, if that is what went wrong.
pub(super) fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let reason = match error {
        rustls::Error::InvalidCertificate(reason) => reason,
        rustls::Error::AlertReceived(alert) => return Some(explain_alert(*alert)),
        rustls::Error::InvalidMessage(_) => {
            return Some(
                "it does not speak TLS: is server_address meant to begin with http://?".into(),
            );
        }
        _ => return Some(format!("TLS: {error}")),
    };
    Some(match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired; its administrator has to renew it".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            // Without the time, which would make it another message each time.
            let now = crate::sys::clock::iso8601(SystemTime::now());
            let (date, _) = now.split_once('T').unwrap_or((&now, ""));
            format!(
                "the server's certificate is not yet valid: is this board's clock set? It says \
                 {date}"
            )
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate was issued by nobody whom this board trusts; name the \
             issuer's certificate with ca_certificate"
                .into()
        }
        CertificateError::BadSignature => {
            "the server's certificate was not signed by the authority of that name whom this \
             board trusts; if the authority was made anew, ca_certificate needs its new \
             certificate"
                .into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server's certificate is for another name: {reason}")
        }
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server shows an authority's own certificate (as `openssl req -x509` makes); make \
             an authority, let that issue a certificate for the server, and name the authority's \
             with ca_certificate"
                .into()
        }
        other => format!("the server's certificate is not accepted: {other}"),
    })
}

/// What the server says of this side.
fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server wants a certificate of this agent; name one with client_certificate and \
             client_key"
                .into()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => format!(
            "the server does not accept this agent's certificate (client_certificate): {alert:?}"
        ),
        AlertDescription::HandshakeFailure => {
            "the server ended the handshake: it may want a certificate of this agent \
             (client_certificate), or speak no TLS that this agent does"
                .into()
        }
        _ => format!("TLS: the server ended the connection: {alert:?}"),
    }
}
