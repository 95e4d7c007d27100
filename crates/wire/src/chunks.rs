//! Answers on their way, as objects.

use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt, select_all};
use mistralrs::{AnswerStream, Delta, Error, Piece, Summary, ToolProgress};
use serde_json::Value;

/// How an API says answers in objects, as they come.
pub trait Chunks: Send + 'static {
    /// Before anything is said.
    fn opening(&mut self, answers: &[AnswerStream]) -> Vec<Value>;
    /// More of the choice with this index.
    fn delta(&mut self, choice: usize, delta: &Delta) -> Value;
    /// A function that runs here for the choice with this index; nothing where the API has no word for it.
    fn tool(&mut self, choice: usize, progress: &ToolProgress) -> Option<Value> {
        let _ = (choice, progress);
        None
    }
    /// The end of a choice, and what follows the last one's.
    fn done(&mut self, choice: usize, summary: &Summary) -> Vec<Value>;
    /// Whether all choices have ended.
    fn are_complete(&self) -> bool;
}

/// Pieces of all choices, each to its end, in the order in which they come.
pub type Pieces = SelectAll<BoxStream<'static, (usize, Result<Piece, Error>)>>;

/// What answers say, with the indices of their choices.
pub fn merged(answers: Vec<AnswerStream>) -> Pieces {
    select_all(answers.into_iter().enumerate().map(|(i, answer)| pieces(i, answer).boxed()))
}

/// One choice's pieces to its end.
fn pieces(index: usize, answer: AnswerStream) -> impl Stream<Item = (usize, Result<Piece, Error>)> {
    stream::unfold(Some(answer), move |answer| async move {
        let mut answer = answer?;
        let piece = answer.next().await;
        let rest = matches!(piece, Ok(Piece::Delta(_) | Piece::Tool(_))).then_some(answer);
        Some(((index, piece), rest))
    })
}
