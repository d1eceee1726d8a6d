//! A small Testflinger server in this process, on the loopback interface.
//!
//! It stands behind `testflinger-agent run`, and every test and benchmark talks
//! to it. Therefore it keeps the API's rules as the real server does
//! (PROTOCOL.md), the surprising ones too: what this one takes, that one takes.
//! It knows nothing of the agent. One thread a connection, one lock around what
//! is known; logs, artifacts and attachments lie in files.

mod agents;
mod body;
mod connection;
mod formats;
mod http;
mod jobs;
mod legacy;
mod listener;
mod logs;
mod multipart;
mod reply;
mod results;
mod routes;
mod rules;
mod script;
mod state;
mod submissions;
mod token;
mod uploads;
mod values;
mod view;

pub use agents::{Agent, ProvisionLog};
pub use legacy::Era;
pub use logs::Fragment;
pub use script::Exchange;
pub use view::View;

use crate::job::Phase;
use crate::sys::clock::{Now, iso8601};
use crate::sys::files;
use reply::{Fail, Reply};
use state::{Shared, State};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How a server is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it keeps its files: a directory of its own, made if need be. The
    /// files stay when the server ends.
    pub directory: PathBuf,
    /// Whether it remembers every request, for [`Server::exchanges`].
    pub keep_exchanges: bool,
    /// How long a connection may be silent between two requests before the
    /// server closes it; 10 s, as the original's gunicorn has it.
    pub keep_alive: Duration,
    /// Of which time it is.
    pub era: Era,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            directory: PathBuf::new(),
            keep_exchanges: false,
            keep_alive: Duration::from_secs(10),
            era: Era::Today,
        }
    }
}

/// A server that runs. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: listener::Listener,
    shared: Arc<Shared>,
}

impl Server {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the directory is not its own, or there is no port or thread.
    pub fn start(options: Options) -> io::Result<Server> {
        files::private_directory(&options.directory).map_err(io::Error::other)?;
        let state = State {
            tokens: token::Tokens::new()?,
            agents: agents::Agents::default(),
            jobs: jobs::Jobs::default(),
            logs: logs::Logs::new(&options.directory),
            artifacts: BTreeSet::new(),
            script: script::Script::default(),
            era: options.era,
            legacy: legacy::Legacy::default(),
        };
        let shared = Arc::new(Shared::new(options, state));
        let listener = listener::Listener::start(Arc::clone(&shared))?;
        Ok(Server { listener, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Its address as an agent's configuration names it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The refresh token that it takes from agents.
    #[must_use]
    pub fn refresh_token(&self) -> String {
        let token = |state: &State| state.tokens.refresh_token().to_owned();
        self.shared.look(token)
    }

    /// Submits a job as `POST /v1/job` does; its identifier.
    ///
    /// # Errors
    /// The server's answer, when it refuses the job.
    pub fn submit(&self, job_json: &str) -> Result<String, String> {
        submissions::submit(&self.shared, job_json).map_err(|fail| match fail {
            Fail::Refused(reply) => reply.into_text().unwrap_or_default(),
            Fail::Broken(error) => error.to_string(),
        })
    }

    /// Hands out exactly this document for the next `GET /v1/job`, whatever
    /// queues it asks for.
    pub fn submit_raw(&self, document: String) {
        self.shared
            .update(|state| state.jobs.add_document(document));
    }

    /// Gives a job the attachments that it waits for, a tar.gz.
    ///
    /// # Errors
    /// When they cannot be read or kept.
    pub fn attach(&self, job_id: &str, archive: impl Read) -> io::Result<()> {
        uploads::attach(&self.shared, job_id, archive)
    }

    /// Cancels a job as a user does. False: it was over.
    pub fn cancel(&self, job_id: &str) -> bool {
        self.shared.update(|state| state.jobs.cancel(job_id))
    }

    /// What an administrator does to an agent.
    pub fn set_agent(&self, name: &str, state: &str, comment: &str) {
        let now = iso8601(Now::read().wall);
        self.shared
            .update(|known| known.agents.set(name, state, comment, &now));
    }

    /// Restricts a queue to the jobs of these owners.
    pub fn restrict(&self, queue: &str, owners: &[&str]) {
        let owners = owners.iter().map(|&owner| owner.to_owned()).collect();
        self.shared
            .update(|known| known.agents.restricted.insert(queue.to_owned(), owners));
    }

    /// It is of another time from now on. What agents posted to it stays where it is,
    /// but each time looks only at its own.
    pub fn set_era(&self, era: Era) {
        self.shared.update(|state| state.era = era);
    }

    /// Ends the life of all access tokens: they get 401.
    pub fn expire_tokens(&self) {
        self.shared
            .update(|state| state.tokens.expire(Instant::now()));
    }

    /// Signs access tokens with another key: the old ones get 403.
    pub fn rotate_key(&self) {
        self.shared.update(|state| state.tokens.forget());
    }

    /// The refresh token buys nothing any longer.
    pub fn revoke_refresh_token(&self) {
        self.shared.update(|state| state.tokens.revoke());
    }

    /// Gives this answer to the next so many requests with the method (or `*`)
    /// and a path in which `*` stands for anything.
    pub fn answer(&self, method: &str, path_pattern: &str, times: u32, status: u16, body: &str) {
        self.answer_with(method, path_pattern, times, status, &[], body);
    }

    /// As [`Server::answer`], with headers.
    pub fn answer_with(
        &self,
        method: &str,
        path_pattern: &str,
        times: u32,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
    ) {
        let reply = headers
            .iter()
            .fold(Reply::scripted(status, body), |reply, (name, value)| {
                reply.with(name, value)
            });
        self.shared
            .update(|state| state.script.add(method, path_pattern, times, reply));
    }

    /// Has every piece of output told to somebody, in the order in which the
    /// pieces are stored: the job, the phase, the text.
    pub fn on_output(&self, observer: impl Fn(&str, Phase, &str) + Send + 'static) {
        let observers = self.shared.observer.lock();
        *observers.unwrap_or_else(PoisonError::into_inner) = Some(Box::new(observer));
    }

    /// Waits until what the server knows is as wanted. False: it did not get so
    /// in time.
    pub fn wait_for(&self, timeout: Duration, is_so: impl Fn(View<'_>) -> bool) -> bool {
        self.shared.wait(timeout, |state| is_so(View::of(state)))
    }

    /// The requests so far, in the order of their answers.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.view(|view| view.exchanges().to_vec())
    }

    /// The file of a job's artifacts, once there is one.
    #[must_use]
    pub fn artifact(&self, job_id: &str) -> Option<PathBuf> {
        let path = uploads::path(
            &self.shared.options.directory,
            job_id,
            uploads::Kind::Artifact,
        );
        self.view(|view| view.has_artifact(job_id)).then_some(path)
    }

    /// How many bytes have come of the files that are being uploaded, if any are.
    #[must_use]
    pub fn receiving(&self) -> Option<u64> {
        uploads::receiving(&self.shared.options.directory)
    }

    /// Looks at what the server knows.
    pub fn view<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        self.shared.look(|state| look(View::of(state)))
    }

    /// See [`View::job_state`].
    #[must_use]
    pub fn job_state(&self, job_id: &str) -> Option<String> {
        self.view(|view| view.job_state(job_id))
    }

    /// See [`View::status`].
    #[must_use]
    pub fn status(&self, job_id: &str) -> BTreeMap<String, i64> {
        self.view(|view| view.status(job_id))
    }

    /// See [`View::output`].
    #[must_use]
    pub fn output(&self, job_id: &str, phase: Phase) -> String {
        self.view(|view| view.output(job_id, phase))
    }

    /// See [`View::fragments`].
    #[must_use]
    pub fn fragments(&self, job_id: &str) -> Vec<Fragment> {
        self.view(|view| view.fragments(job_id))
    }

    /// See [`View::result`].
    #[must_use]
    pub fn result(&self, job_id: &str) -> String {
        self.view(|view| view.result(job_id))
    }

    /// Writes what `GET /v1/result` answers, whatever its size.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn write_result(&self, job_id: &str, out: &mut impl Write) -> io::Result<()> {
        let pieces = self.shared.look(|state| results::pieces(state, job_id))?;
        let mut pieces = pieces.into_iter().flatten();
        pieces.try_for_each(|piece| piece.write(out))
    }

    /// See [`View::agent`].
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<Agent> {
        self.view(|view| view.agent(name))
    }
}
