//! What a job is: its document, its phases and their limits, its workspace, and
//! its record, which says how far it is and what the server knows of that.
//!
//! The other rooms meet in these types. This one starts no process and knows no
//! server.

mod artifacts;
mod attachments;
mod document;
mod entry;
mod event;
mod limits;
mod log_type;
mod phase;
mod progress;
mod record;
mod records;
mod refused;
mod secrets;
mod workspace;

pub use artifacts::{Artifacts, remove_artifacts};
pub use attachments::{ATTACHABLE, Attachments};
pub use document::Job;
pub use entry::Entry;
pub use event::{JobEvent, Webhook};
pub use limits::{AgentLimits, limits};
pub use log_type::{LOG_TYPES, LogLength, LogType, PerLog, length_of};
pub use phase::{PHASES, Phase};
pub use progress::{LogProgress, NOT_RUN, PhaseProgress, Progress};
pub use record::Record;
pub use records::Records;
pub use refused::remove_oldest_refused;
pub use secrets::JobSecrets;
pub use workspace::Workspace;
