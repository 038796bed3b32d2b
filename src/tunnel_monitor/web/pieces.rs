//! A body that is made piece by piece, each when the one before has been taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::Frame;

/// What making a piece has come to: the piece, and from where to go on. `None`: that was all. An error
/// cuts the connection, so that a reader does not take a part for the whole.
pub(super) type Made<S> = Option<io::Result<(Vec<u8>, S)>>;

type Making<S> = Pin<Box<dyn Future<Output = Made<S>> + Send>>;

/// A body from `state` on, of the pieces that `make` makes.
pub(super) fn body<S, F>(state: S, make: fn(S) -> F) -> Body
where
    S: Send + Unpin + 'static,
    F: Future<Output = Made<S>> + Send + 'static,
{
    Body::new(Pieces {
        state: Some(state),
        making: None,
        make: move |state| -> Making<S> { Box::pin(make(state)) },
    })
}

struct Pieces<S, M> {
    /// `None` while a piece is being made, and at the end.
    state: Option<S>,
    making: Option<Making<S>>,
    make: M,
}

impl<S, M> hyper::body::Body for Pieces<S, M>
where
    S: Unpin,
    M: Fn(S) -> Making<S> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let pieces = &mut *self;
        let making = match (&mut pieces.making, pieces.state.take()) {
            (Some(making), _) => making,
            (making, Some(state)) => making.insert((pieces.make)(state)),
            (None, None) => return Poll::Ready(None),
        };
        let made = match making.as_mut().poll(cx) {
            Poll::Ready(made) => made,
            Poll::Pending => return Poll::Pending,
        };
        pieces.making = None;
        Poll::Ready(made.map(|made| {
            let (piece, state) = made?;
            pieces.state = Some(state);
            Ok(Frame::data(piece.into()))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.making.is_none() && self.state.is_none()
    }
}
