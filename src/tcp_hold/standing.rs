//! The programs where they stand, and the guard who stands there with them.

use std::sync::Arc;

use anyhow::Result;

use super::accounts::Accounts;
use super::guard::Guard;
use crate::failure::say;
use crate::tc::Attachment;

/// Attachments that this process and its guard have both. It is the guard who takes the programs off.
#[derive(Debug)]
pub struct Standing {
    attached: Vec<Attachment>,
    guard: Option<Guard>,
    accounts: Arc<Accounts>,
}

impl Standing {
    /// Nowhere.
    pub fn new(accounts: &Arc<Accounts>) -> Standing {
        Standing {
            attached: Vec::new(),
            guard: None,
            accounts: Arc::clone(accounts),
        }
    }

    /// Takes these to the others.
    pub fn add(&mut self, attached: Vec<Attachment>) -> Result<()> {
        let before = self.attached.len();
        self.attached.extend(attached);
        if let Err(error) = self.renew() {
            // Nobody would guard them.
            self.attached.truncate(before);
            return Err(error);
        }
        Ok(())
    }

    /// The guard, if there is one.
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref().filter(|guard| guard.is_alive())
    }

    /// Another guard.
    pub fn renew(&mut self) -> Result<()> {
        let next = Guard::start(&mut self.attached, &self.accounts)?;
        if let Some(guard) = self.guard.replace(next) {
            guard.hand_over();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.attached.is_empty() {
            return Ok(());
        }
        if self.guard().is_none() {
            self.renew()?;
        }
        if let Some(guard) = self.guard.take() {
            guard.end()?;
        }
        Ok(())
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        match self.end() {
            Ok(()) => self.attached.drain(..).for_each(Attachment::leave),
            Err(error) => say(format_args!(
                "tcp_hold: {error:#}; the kernel's acknowledgements pass again"
            )),
        }
    }
}
