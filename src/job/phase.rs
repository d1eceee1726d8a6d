//! The phases of a job, in their order and under their names.

use std::fmt;

/// One phase of a job. The names are the API's (PROTOCOL.md, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Prepares the host; runs for every job.
    Setup,
    /// Puts the wanted image on the device.
    Provision,
    /// Updates the device's firmware.
    FirmwareUpdate,
    /// Runs the user's commands.
    Test,
    /// Hands the device to a multi-device parent job.
    Allocate,
    /// Keeps the device for a person.
    Reserve,
    /// Leaves the device in order; runs for every job, always last.
    Cleanup,
}

/// Every phase, in the order in which a job goes through them.
pub const PHASES: [Phase; 7] = [
    Phase::Setup,
    Phase::Provision,
    Phase::FirmwareUpdate,
    Phase::Test,
    Phase::Allocate,
    Phase::Reserve,
    Phase::Cleanup,
];

impl Phase {
    /// The phase's name in the API, in file names and in `<phase>_command`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Setup => "setup",
            Phase::Provision => "provision",
            Phase::FirmwareUpdate => "firmware_update",
            Phase::Test => "test",
            Phase::Allocate => "allocate",
            Phase::Reserve => "reserve",
            Phase::Cleanup => "cleanup",
        }
    }

    /// The phase of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Phase> {
        PHASES.into_iter().find(|phase| phase.name() == name)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
