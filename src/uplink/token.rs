//! The agent's tokens: the refresh token in its file, and the short-lived
//! access token that it buys. Neither is ever printed.

use super::faults::Faults;
use super::http::{Credentials, Http, NoAnswer, Patience, Payload};
use crate::json::{DeJson, Json, Object};
use crate::warning;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token that dies while its request travels is of no use.
const MARGIN: Duration = Duration::from_secs(15);
/// How long a refresh token that the server refused is not shown to it again,
/// unless the file changes.
const REFUSED: Duration = Duration::from_secs(60);
const USE_TOKEN: &str = "use the refresh token";

/// The tokens of all of the uplink's threads.
#[derive(Debug)]
pub(super) struct Tokens {
    file: PathBuf,
    /// It was said that others can read the file.
    warned: AtomicBool,
    /// There was no file when it was last looked at.
    missing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    access: Option<Access>,
    refused: Option<(String, Instant)>,
}

/// Tokens are for the server's eyes only.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

struct Access {
    token: String,
    until: Instant,
}

impl Tokens {
    pub(super) fn new(file: PathBuf) -> Tokens {
        Tokens {
            file,
            warned: AtomicBool::new(false),
            missing: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// An access token that lives for at least `needed`; `None` when there is
    /// none to be had: servers without authentication want none.
    ///
    /// # Errors
    /// When the server cannot be asked for one.
    pub(super) fn access(
        &self,
        http: &Http,
        faults: &Faults,
        needed: Duration,
    ) -> Result<Option<String>, NoAnswer> {
        // Held while refreshing: the other thread wants the same token.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(access) = &state.access
            && access.until.saturating_duration_since(now) >= needed.max(MARGIN)
        {
            return Ok(Some(access.token.clone()));
        }
        state.access = None;
        // The file is read anew each time: somebody may have replaced it.
        let read = self.read();
        self.missing
            .store(matches!(read, Ok(None)), Ordering::Relaxed);
        let refresh = match read {
            Ok(Some(refresh)) => refresh,
            Ok(None) => return Ok(None),
            Err(cause) => {
                faults.report("read the token file", &cause, "going on without a token");
                return Ok(None);
            }
        };
        faults.over("read the token file");
        if let Some((refused, at)) = &state.refused
            && *refused == refresh
            && now.saturating_duration_since(*at) < REFUSED
        {
            return Ok(None);
        }
        match exchange(http, &refresh)? {
            Exchange::Granted(access) => {
                faults.over(USE_TOKEN);
                let token = access.token.clone();
                state.access = Some(access);
                Ok(Some(token))
            }
            Exchange::Refused(cause) => {
                let next = "put a new one into the token file";
                faults.report(USE_TOKEN, &cause, next);
                state.refused = Some((refresh, now));
                Ok(None)
            }
        }
    }

    /// What to say where somebody wants a token and there is none.
    pub(super) fn hint(&self) -> Option<String> {
        let name = self.file.display();
        let is_missing = self.missing.load(Ordering::Relaxed);
        is_missing.then(|| format!(" (there is no refresh token in {name})"))
    }

    /// The server does not take this access token any more.
    pub(super) fn forget(&self, token: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .access
            .as_ref()
            .is_some_and(|access| access.token == token)
        {
            state.access = None;
        }
    }

    /// Once: a secret that others can read is none.
    fn warn_of_readers(&self, metadata: &Metadata) {
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 && !self.warned.swap(true, Ordering::Relaxed) {
            let name = self.file.display();
            warning!("others can read {name} (mode {mode:o}): make it 0600 with chmod");
        }
    }

    /// The refresh token, if there is a file.
    fn read(&self) -> Result<Option<String>, String> {
        let name = self.file.display();
        let failed = |error: io::Error| format!("{name}: {error}");
        match fs::metadata(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(metadata) if !metadata.is_file() => return Err(format!("{name} is no file")),
            Ok(metadata) => self.warn_of_readers(&metadata),
        }
        let mut text = String::new();
        let file = File::open(&self.file).map_err(failed)?;
        file.take(64 << 10)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Json::parse(&text)
            .ok()
            .and_then(|json| json.get("refresh_token")?.string())
            .filter(|token| !token.is_empty())
            .map(Some)
            .ok_or_else(|| format!("{name} does not hold {{\"refresh_token\": \"…\"}}"))
    }
}

/// The server's answer.
#[derive(DeJson)]
struct Grant {
    access_token: String,
    /// Seconds.
    expires_in: Option<i64>,
}

enum Exchange {
    Granted(Access),
    Refused(String),
}

/// So many characters of what the server says are said.
const LONGEST_MESSAGE: usize = 300;

/// Asks for an access token.
fn exchange(http: &Http, refresh: &str) -> Result<Exchange, NoAnswer> {
    let mut body = Object::new();
    body.string("refresh_token", refresh);
    let body = body.finish();
    let path = "/v1/oauth2/refresh";
    let asked = Instant::now();
    let reply = http.send(
        "POST",
        path,
        Credentials::default(),
        Payload::Json(&body),
        Patience::Call,
    )?;
    let status = reply.status;
    if let Some(redirect) = reply.redirect() {
        return Err(NoAnswer::because(format!("it answered {redirect}")));
    }
    let text = reply.text(64 << 10).map_err(NoAnswer::because)?;
    let json = Json::parse(&text).ok();
    match status {
        200 => {
            let fields = ["access_token", "expires_in"];
            let grant: Option<Grant> = json.and_then(|json| json.decode(&fields).ok());
            let nothing = || NoAnswer::because("the server's answer holds no access token");
            // What cannot stand in a header would fail every call until it expires.
            let is_token = |grant: &Grant| grant.access_token.bytes().all(|b| b.is_ascii_graphic());
            let grant = grant.filter(is_token).ok_or_else(nothing)?;
            let lifetime = grant.expires_in.unwrap_or(600).clamp(0, 86_400);
            Ok(Exchange::Granted(Access {
                token: grant.access_token,
                until: asked + Duration::from_secs(lifetime.unsigned_abs()),
            }))
        }
        400..=499 if status != 429 => {
            let message = json.and_then(|json| json.get("message")?.string());
            // It may say which token it was.
            let message = message.unwrap_or_default().replace(refresh, "…");
            let message: String = message.chars().take(LONGEST_MESSAGE).collect();
            Ok(Exchange::Refused(format!(
                "the server answered {status} {message}"
            )))
        }
        _ => Err(NoAnswer::because(format!(
            "it answered {status} when asked for an access token"
        ))),
    }
}
