//! What the threads of one uplink share: whom they talk to, and what they have learnt of
//! that.

use super::era::Era;
use super::faults::Faults;
use super::token::Tokens;
use super::upload::Lengths;
use super::{Settings, TlsFiles};
use crate::metrics::Metrics;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// See [`Common::is_agent_forgotten`].
const DOUBTS: u32 = 3;

/// What they share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) server: String,
    pub(super) tls: TlsFiles,
    pub(super) agent_id: String,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    pub(super) era: Era,
    /// By which the server knows who asks for a job.
    pub(super) cookie: Mutex<Option<String>>,
    pub(super) lengths: Lengths,
    pub(super) metrics: Metrics,
    /// How many threads tell webhooks.
    pub(super) tellings: AtomicUsize,
    /// How many answers were what they should be.
    understood: AtomicU64,
    /// How often in a row the server may still say that it does not know the agent, before
    /// that is believed.
    doubts: AtomicU32,
}

impl Common {
    pub(super) fn new(settings: Settings) -> Common {
        let Settings {
            server,
            tls,
            agent_id,
            token_file,
            metrics,
        } = settings;
        // What RFC 6265 calls cookie-octets. Where the name has others, the
        // server writes the cookie, in its answer to the first post.
        let plain =
            |byte: u8| matches!(byte, b'!' | b'#'..=b'+' | b'-'..=b':' | b'<'..=b'[' | b']'..=b'~');
        let cookie = agent_id
            .bytes()
            .all(plain)
            .then(|| format!("agent_name={agent_id}"));
        Common {
            server,
            tls,
            agent_id,
            tokens: Tokens::new(token_file),
            faults: Faults::default(),
            era: Era::default(),
            cookie: Mutex::new(cookie),
            lengths: Lengths::default(),
            metrics,
            tellings: AtomicUsize::new(0),
            understood: AtomicU64::new(0),
            doubts: AtomicU32::new(0),
        }
    }

    /// An answer was what it should be.
    pub(super) fn understand(&self, action: &str) {
        self.faults.over(action);
        self.understood.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were so far.
    pub(super) fn understood(&self) -> u64 {
        self.understood.load(Ordering::Relaxed)
    }

    /// The server has told of this agent.
    pub(super) fn agent_is_known(&self) {
        self.doubts.store(DOUBTS, Ordering::Relaxed);
    }

    /// Whether to believe that the server does not know this agent. Not at once, if it has
    /// known it: what an administrator has said would be forgotten for a 404 of whoever
    /// stands before the server for a moment.
    pub(super) fn is_agent_forgotten(&self) -> bool {
        let fewer = |doubts: u32| doubts.checked_sub(1);
        let doubted = self
            .doubts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        doubted.is_err()
    }
}
