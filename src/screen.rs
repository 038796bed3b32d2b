//! Text on stdout that is redrawn in place on a terminal, and plain lines in a pipe.

use std::io::{self, IsTerminal, Write};

/// Where reports go.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    /// Lines of the last picture, which the next one covers.
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

    /// Shows a picture in the place of the last one; in a pipe below it, after an empty line.
    pub fn draw(&mut self, picture: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.drawn > 0 {
            if self.terminal {
                // Up to the first line of the last picture, then clear to the end of the screen.
                write!(out, "\r\x1b[{}A\x1b[J", self.drawn)?;
            } else {
                writeln!(out)?;
            }
        } else if self.terminal {
            write!(out, "\r\x1b[J")?;
        }
        out.write_all(picture.as_bytes())?;
        out.flush()?;
        self.drawn = picture.lines().count();
        Ok(())
    }
}
