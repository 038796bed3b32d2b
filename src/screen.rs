//! Text on stdout that is redrawn in place on a terminal, and plain lines in a pipe.

use std::io::{self, IsTerminal, Write};

/// Where reports go.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    /// Lines between the cursor and the first line of the last picture.
    drawn: usize,
}

impl Screen {
    /// Writes to stdout.
    pub fn stdout() -> Screen {
        Screen {
            terminal: io::stdout().is_terminal(),
            drawn: 0,
        }
    }

    /// Shows a picture in the place of the last one, and `prompt` below it. In a pipe there is no
    /// place to go back to and nobody to prompt: the picture follows after an empty line.
    pub fn draw(&mut self, picture: &str, prompt: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.terminal {
            self.go_back(&mut out)?;
            // Without wrapping, so that a line of the picture is a line of the screen.
            write!(out, "\x1b[?7l{picture}\x1b[?7h{prompt}")?;
            self.drawn = picture.lines().count();
        } else {
            write!(out, "\n{picture}")?;
        }
        out.flush()
    }

    /// Shows a picture below everything else, for good.
    pub fn conclude(&mut self, picture: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        // What the user typed has moved the cursor, so an old picture stays where it is.
        write!(out, "\n{picture}")?;
        self.drawn = 0;
        out.flush()
    }

    /// To the first line of the last picture, or of the line that the cursor is in; the screen is
    /// cleared from there.
    fn go_back(&self, out: &mut impl Write) -> io::Result<()> {
        match self.drawn {
            0 => write!(out, "\r\x1b[J"),
            lines => write!(out, "\r\x1b[{lines}A\x1b[J"),
        }
    }
}
