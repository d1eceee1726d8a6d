//! A place in a phase's command where it waits for the test.

use super::lab::Scratch;
use std::fs;
use std::path::PathBuf;

/// Shut at first. A command that waits there also goes on when the lab is gone,
/// so that a test that failed leaves nothing behind.
#[derive(Debug)]
pub struct Gate(PathBuf);

impl Gate {
    pub fn new(scratch: &Scratch, name: &str) -> Gate {
        Gate(scratch.path(&format!("gate-{name}")))
    }

    /// The words that wait, for a command.
    pub fn words(&self) -> String {
        let (lab, gate) = (self.0.parent().unwrap(), &self.0);
        let (lab, gate) = (lab.display(), gate.display());
        format!("while [ -d '{lab}' ] && [ ! -e '{gate}' ]; do sleep 0.05; done")
    }

    /// Makes the next command wait.
    pub fn shut(&self) {
        fs::remove_file(&self.0).unwrap();
    }

    /// Lets the command go on.
    pub fn open(&self) {
        fs::write(&self.0, "open").unwrap();
    }
}
