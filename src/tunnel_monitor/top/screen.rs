//! The terminal, for as long as it is ours: keys one by one, a screen of its own, and nobody else's words
//! on it. Whatever ends the run, [`Drop`] gives it back as it was.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Stdout, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{
    InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use nix::unistd::{Pid, dup, dup2_stderr, read};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};

use super::keys::{Key, Keys};
use super::model::Model;
use super::view::{self, Look};
use crate::Failure;

/// What follows an Escape comes at once, if it is the beginning of a key.
const ESCAPE_WAIT: Duration = Duration::from_millis(40);
/// Of what was said meanwhile, the last so many bytes.
const LONGEST_SAID: u64 = 64 * 1024;

/// The terminal. Stdin and stdout have to be one.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    before: Termios,
    /// What the others say, until there is room for it.
    said: Option<Said>,
    keys: Keys,
    look: Look,
    is_ours: bool,
}

/// What stands on stderr while the screen is ours: in memory, where it would be drawn over.
struct Said {
    words: File,
    stderr: OwnedFd,
}

impl Said {
    /// Where stderr is no terminal, nothing has to be done.
    fn hold() -> Result<Option<Said>> {
        if !stderr().is_terminal() {
            return Ok(None);
        }
        let words = memfd_create(c"stderr", MFdFlags::MFD_CLOEXEC).context("hold stderr")?;
        let stderr = dup(stderr()).context("keep stderr")?;
        dup2_stderr(&words).context("hold stderr")?;
        Ok(Some(Said {
            words: words.into(),
            stderr,
        }))
    }

    fn release(mut self) -> io::Result<()> {
        dup2_stderr(&self.stderr)?;
        let length = self.words.seek(SeekFrom::End(0))?;
        let start = length.saturating_sub(LONGEST_SAID);
        self.words.seek(SeekFrom::Start(start))?;
        let mut words = Vec::new();
        self.words.read_to_end(&mut words)?;
        stderr().write_all(&words)
    }
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn take() -> Result<Screen> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            let text = "top needs a terminal to draw on and to read keys from; for other uses there are \
                        --json and the /events of HTTP";
            return Err(Failure::Usage(text.into()).into());
        }
        let before = tcgetattr(stdin()).context("ask for the terminal's settings")?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))
            .context("ask for the terminal's size")?;
        let mut screen = Screen {
            terminal,
            before,
            said: None,
            keys: Keys::default(),
            look: Look::of(|name| std::env::var(name).ok()),
            is_ours: false,
        };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&mut self) -> Result<()> {
        let mut ours = self.before.clone();
        // Keys come one by one and are not shown; Ctrl-C is a key. Output stays as it is.
        ours.local_flags &=
            !(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN);
        ours.input_flags &= !(InputFlags::IXON | InputFlags::ICRNL);
        ours.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        ours.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        self.is_ours = true;
        tcsetattr(stdin(), SetArg::TCSADRAIN, &ours).context("read the terminal by keys")?;
        execute!(stdout(), EnterAlternateScreen, Hide).context("draw on the terminal")?;
        self.said = Said::hold()?;
        self.clear().context("draw on the terminal")
    }

    /// Everything is drawn next. `Terminal::clear` does the same, but asks the terminal first where its
    /// cursor is, and takes keys for the answer where it gives none.
    fn clear(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Gives everything back. Each step is tried, whatever became of the others; of a terminal that is
    /// gone there is nothing to give back.
    fn leave(&mut self) {
        if !std::mem::take(&mut self.is_ours) {
            return;
        }
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.before);
        if let Some(said) = self.said.take() {
            let _ = said.release();
        }
    }

    /// Stops, as Ctrl-Z stops other programs: this job, until the shell lets it go on.
    pub(super) fn suspend(&mut self) -> Result<()> {
        self.leave();
        // To all of the job, as the terminal would.
        kill(Pid::from_raw(0), Signal::SIGTSTP).context("stop")?;
        self.enter()
    }

    /// Draws what has changed, in the size that the terminal has now.
    pub(super) fn draw(&mut self, model: &mut Model) -> io::Result<()> {
        let look = self.look;
        self.terminal.draw(|frame| {
            let area = frame.area();
            model.set_room(view::room(model, area));
            view::render(model, look, area, frame.buffer_mut());
        })?;
        Ok(())
    }

    /// Draws everything, wherever something else has drawn meanwhile.
    pub(super) fn draw_anew(&mut self, model: &mut Model) -> io::Result<()> {
        self.clear()?;
        self.draw(model)
    }

    /// The keys that were pressed. `None`: the terminal is gone.
    pub(super) fn keys(&mut self) -> Result<Option<Vec<Key>>> {
        let mut bytes = [0; 1024];
        let mut keys = Vec::new();
        loop {
            match read(stdin(), &mut bytes) {
                Ok(0) | Err(Errno::EIO) => return Ok(None),
                Ok(length) => keys.extend(self.keys.take(&bytes[..length])),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("read keys"),
            }
            if !self.keys.is_open() {
                break;
            }
            if !comes_within(ESCAPE_WAIT) {
                keys.extend(self.keys.close());
                break;
            }
        }
        Ok(Some(keys))
    }
}

/// Whether there is something to read by then.
fn comes_within(time: Duration) -> bool {
    let stdin = stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
    poll(&mut fds, time).is_ok_and(|count| count > 0)
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}
