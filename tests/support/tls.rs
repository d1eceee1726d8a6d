//! TLS on loopback: an authority, what it issues, and a terminator before the
//! small server.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ALL_VERSIONS, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// What a server on loopback is called.
pub const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];

/// From and to the first of January of these years.
pub type Years = (i32, i32);
/// Valid on any machine that runs a test.
pub const NOW: Years = (2000, 4000);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A certificate and its key, in PEM form.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

/// Somebody who issues certificates.
pub struct Authority {
    /// Its own, in PEM form.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that nobody knows, not even by name.
    pub fn new() -> Authority {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Authority::named(&format!("authority {number} of {}", std::process::id()))
    }

    pub fn named(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut parameters = authority();
        parameters.distinguished_name.push(DnType::CommonName, name);
        Authority {
            certificate: parameters.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str], years: Years) -> Identity {
        self.certify(&KeyPair::generate().unwrap(), names, years)
    }

    /// The same for a key that there is already.
    pub fn certify(&self, key: &KeyPair, names: &[&str], (from, to): Years) -> Identity {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
        let certificate = parameters.signed_by(key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

fn authority() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

/// What `openssl req -x509` makes: an authority that is its own server.
pub fn self_signed() -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(LOOPBACK.map(str::to_owned)).unwrap();
    parameters.is_ca = authority().is_ca;
    Identity {
        certificate: parameters.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// A server's side: whom it is, and whose clients it takes if not everybody's.
pub fn server(identity: &Identity, clients: Option<&Authority>) -> Arc<ServerConfig> {
    server_of(ALL_VERSIONS, identity, clients)
}

/// The same, of certain versions of TLS.
pub fn server_of(
    versions: &[&'static SupportedProtocolVersion],
    identity: &Identity,
    clients: Option<&Authority>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let pem = authority.certificate.as_bytes();
            roots
                .add(CertificateDer::from_pem_slice(pem).unwrap())
                .unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

/// Speaks TLS with clients and passes on what they say; it ends, with all its
/// connections, when it is dropped.
pub struct Terminator {
    address: SocketAddr,
    listener: TcpListener,
    hub: Arc<Hub>,
}

struct Hub {
    upstream: SocketAddr,
    config: Mutex<Arc<ServerConfig>>,
    /// Both ends of whatever is open.
    open: Mutex<Vec<Weak<TcpStream>>>,
    /// Connections that nobody answers.
    held: Mutex<Vec<TcpStream>>,
    silent: AtomicBool,
    accepted: AtomicUsize,
    /// Bytes a second from the client; 0 for any number.
    rate: AtomicU64,
    stalled: AtomicBool,
}

impl Terminator {
    /// Listens on a loopback port for what is meant for `upstream`.
    pub fn start(upstream: SocketAddr, config: Arc<ServerConfig>) -> Terminator {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let terminator = Terminator {
            address: listener.local_addr().unwrap(),
            listener: listener.try_clone().unwrap(),
            hub: Arc::new(Hub {
                upstream,
                config: Mutex::new(config),
                open: Mutex::default(),
                held: Mutex::default(),
                silent: AtomicBool::new(false),
                accepted: AtomicUsize::new(0),
                rate: AtomicU64::new(0),
                stalled: AtomicBool::new(false),
            }),
        };
        let hub = Arc::clone(&terminator.hub);
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let number = hub.accepted.fetch_add(1, Ordering::SeqCst);
                if hub.silent.load(Ordering::SeqCst) {
                    hub.held.lock().unwrap().push(client);
                    continue;
                }
                let hub = Arc::clone(&hub);
                let thread = thread::Builder::new().name(format!("tls {number}"));
                // An error is a connection that broke: it is closed.
                thread.spawn(move || hub.serve(client)).unwrap();
            }
        });
        terminator
    }

    /// For a client: `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Whoever connects from now on meets this server; the others are cut.
    pub fn show(&self, config: Arc<ServerConfig>) {
        *self.hub.config.lock().unwrap() = config;
        self.hub.cut();
    }

    /// Whoever connects from now on hears nothing, not even a handshake; the
    /// others are cut. Or an end of that.
    pub fn fall_silent(&self, silent: bool) {
        self.hub.silent.store(silent, Ordering::SeqCst);
        self.hub.cut();
    }

    /// Reads from its clients at this many bytes a second.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.hub.rate.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Reads nothing from anybody; or an end of that.
    pub fn stall(&self, stalled: bool) {
        self.hub.stalled.store(stalled, Ordering::SeqCst);
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.hub.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        let _ = TcpStream::from(OwnedFd::from(self.listener.try_clone().unwrap()))
            .shutdown(Shutdown::Both);
        self.hub.cut();
        self.stall(false);
    }
}

impl Hub {
    fn cut(&self) {
        self.held.lock().unwrap().clear();
        for stream in self.open.lock().unwrap().drain(..) {
            if let Some(stream) = stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn register(&self, stream: TcpStream) -> Arc<TcpStream> {
        let stream = Arc::new(stream);
        self.open.lock().unwrap().push(Arc::downgrade(&stream));
        stream
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let config = Arc::clone(&self.config.lock().unwrap());
        let client = self.register(client);
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            if let Err(error) = tls.complete_io(&mut &*client) {
                // What has not been read would take the alert with it.
                client.shutdown(Shutdown::Write)?;
                io::copy(&mut &*client, &mut io::sink())?;
                return Err(error);
            }
        }
        let upstream = self.register(TcpStream::connect(self.upstream)?);
        upstream.set_nodelay(true)?;
        let tls = Mutex::new(tls);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = answers(&upstream, &tls, &client);
                let _ = client.shutdown(Shutdown::Both);
            });
            let result = self.requests(&client, &tls, &upstream);
            let _ = upstream.shutdown(Shutdown::Both);
            result
        })
    }

    /// From the client to the server, not faster than the rate.
    fn requests(
        &self,
        client: &TcpStream,
        tls: &Mutex<ServerConnection>,
        upstream: &TcpStream,
    ) -> io::Result<()> {
        let mut sealed = vec![0; 16 << 10];
        // What came with the handshake is inside already.
        if !pass_on(tls, upstream)? {
            return Ok(());
        }
        loop {
            let begun = Instant::now();
            let mut client = client;
            while self.stalled.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            let read = client.read(&mut sealed)?;
            if read == 0 {
                return Ok(());
            }
            let mut rest = &sealed[..read];
            while !rest.is_empty() {
                {
                    let mut tls = tls.lock().unwrap();
                    tls.read_tls(&mut rest)?;
                    tls.process_new_packets().map_err(io::Error::other)?;
                    while tls.wants_write() {
                        tls.write_tls(&mut client)?;
                    }
                }
                // It takes no more before that has been read.
                if !pass_on(tls, upstream)? {
                    return Ok(());
                }
            }
            let rate = self.rate.load(Ordering::SeqCst);
            if rate > 0 {
                let whole = Duration::from_secs_f64(read as f64 / rate as f64);
                thread::sleep(whole.saturating_sub(begun.elapsed()));
            }
        }
    }
}

/// What has been opened; false at its end.
fn pass_on(tls: &Mutex<ServerConnection>, mut upstream: &TcpStream) -> io::Result<bool> {
    let mut plain = vec![0; 16 << 10];
    loop {
        let read = tls.lock().unwrap().reader().read(&mut plain);
        match read {
            Ok(0) => return Ok(false),
            Ok(read) => upstream.write_all(&plain[..read])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// From the server to the client.
fn answers(
    upstream: &TcpStream,
    tls: &Mutex<ServerConnection>,
    client: &TcpStream,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let (mut upstream, mut client) = (upstream, client);
    loop {
        let read = upstream.read(&mut buffer)?;
        let mut tls = tls.lock().unwrap();
        match read {
            0 => tls.send_close_notify(),
            read => tls.writer().write_all(&buffer[..read])?,
        }
        while tls.wants_write() {
            tls.write_tls(&mut client)?;
        }
        if read == 0 {
            return Ok(());
        }
    }
}
