//! The programs where they stand, and the guard who stands there with them.

use std::sync::Arc;

use anyhow::Result;

use super::accounts::Accounts;
use super::guard::Guard;
use super::post::Post;
use crate::failure::say;

/// Posts that this process and its guard have both. It is the guard who takes the programs off.
#[derive(Debug)]
pub struct Standing {
    posts: Vec<Post>,
    guard: Option<Guard>,
    accounts: Arc<Accounts>,
}

impl Standing {
    /// Nowhere.
    pub fn new(accounts: &Arc<Accounts>) -> Standing {
        Standing {
            posts: Vec::new(),
            guard: None,
            accounts: Arc::clone(accounts),
        }
    }

    /// Takes these to the others.
    pub fn add(&mut self, posts: Vec<Post>) -> Result<()> {
        let before = self.posts.len();
        self.posts.extend(posts);
        if let Err(error) = self.renew() {
            // Nobody would guard them.
            self.posts.truncate(before);
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
        let next = Guard::start(&mut self.posts, &self.accounts)?;
        if let Some(guard) = self.guard.replace(next) {
            guard.hand_over();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.posts.is_empty() {
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
            Ok(()) => self.posts.drain(..).for_each(Post::leave),
            Err(error) => say(format_args!(
                "tcp_hold: {error:#}; the kernel's acknowledgements pass again"
            )),
        }
    }
}
