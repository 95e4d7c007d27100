//! What an answer may say, token by token.

use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{Matcher, ParserFactory, token_bytes_from_tokenizer_json};
use serde_json::{Value, json};

use crate::calls::choice;
use crate::{AnswerGrammar, TextError, Tokenizer};

/// Bytes that a grammar may have.
const GRAMMAR_BYTES_MAX: usize = 256 << 10;

/// A language that an answer must be of.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid for a schema.
    JsonSchema(Value),
    /// What a regular expression matches as a whole (Rust's syntax).
    Regex(String),
    /// A context-free grammar in llguidance's variant of Lark's notation.
    Lark(String),
    /// Lark grammars and schemas that name each other, as llguidance's JSON.
    Llguidance(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// Compiles grammars for one tokenizer.
pub struct Grammars {
    factory: ParserFactory,
    tokenizer: Arc<Tokenizer>,
}

/// Where an answer is in its grammar.
pub struct Guide(Matcher);

/// The tokenizer as llguidance sees it.
struct Environment {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
    canonical: bool,
}

impl Grammars {
    /// Learns the bytes of every token. `ends` are the tokens that end an answer.
    ///
    /// # Errors
    /// [`TextError::Grammar`] for a tokenizer whose tokens are not texts of bytes, or an answer that nothing ends.
    pub fn new(tokenizer: Arc<Tokenizer>, ends: &[u32]) -> Result<Self, TextError> {
        let json: Value = serde_json::from_str(&tokenizer.json()?).map_err(refused)?;
        let bytes = token_bytes_from_tokenizer_json(&json).map_err(refused)?;
        let ends: Vec<u32> = ends.iter().copied().filter(|id| (*id as usize) < bytes.len()).collect();
        let Some(&end) = ends.first() else { return Err(TextError::Grammar("the model has no end token".into())) };
        let trie = TokTrie::from(&TokRxInfo::new(bytes.len() as u32, end), &bytes).with_eos_tokens(&ends);
        let mut environment = Environment { tokenizer: tokenizer.clone(), trie, canonical: false };
        environment.canonical = environment.keeps_bytes();
        let environment: TokEnv = Arc::new(environment);
        let mut factory = ParserFactory::new_simple(&environment).map_err(refused)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, tokenizer })
    }

    /// Makes a grammar ready to be followed. What it may cost is bounded by llguidance's limits.
    ///
    /// # Errors
    /// [`TextError::Grammar`] says what is wrong with the grammar, in one line.
    pub fn compile(&self, grammar: &Grammar) -> Result<Guide, TextError> {
        if grammar.bytes() > GRAMMAR_BYTES_MAX {
            return Err(TextError::Grammar(format!("it has more than {GRAMMAR_BYTES_MAX} bytes")));
        }
        let grammar = match grammar {
            Grammar::JsonObject => TopLevelGrammar::from_json_schema(tidy(json!({"type": "object"}))),
            Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(tidy(schema.clone())),
            Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Grammar::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
            Grammar::Llguidance(json) => TopLevelGrammar::from_lark_or_grammar_list(json).map_err(refused)?,
            Grammar::Choice(texts) => {
                TopLevelGrammar::from_grammar(GrammarWithLexer::from_lark(format!("start: {}", choice(texts)?)))
            }
        };
        self.follow(grammar)
    }

    /// As [`Self::compile`], for an answer that may think and call functions.
    ///
    /// # Errors
    /// As there.
    pub fn compile_answer(&self, answer: &AnswerGrammar) -> Result<Guide, TextError> {
        let lark = answer.lark(&self.tokenizer)?;
        if lark.len() > GRAMMAR_BYTES_MAX {
            return Err(TextError::Grammar(format!("it has more than {GRAMMAR_BYTES_MAX} bytes")));
        }
        self.follow(TopLevelGrammar::from_lark(lark))
    }

    fn follow(&self, grammar: TopLevelGrammar) -> Result<Guide, TextError> {
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        // An error of the grammar may show only where it is followed.
        matcher.compute_mask().map_err(refused)?;
        Ok(Guide(matcher))
    }
}

impl Grammar {
    fn bytes(&self) -> usize {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema(schema) => schema.to_string().len(),
            Self::Regex(text) | Self::Lark(text) | Self::Llguidance(text) => text.len(),
            Self::Choice(texts) => texts.iter().map(|text| text.len() + 8).sum(),
        }
    }
}

impl Guide {
    /// Tokens that may come next, a bit each, the lowest first; end tokens where the answer may end.
    ///
    /// # Errors
    /// Following the grammar takes too much.
    pub fn mask(&mut self) -> Result<Vec<u32>, TextError> {
        Ok(self.0.compute_mask_or_eos().map_err(refused)?.as_slice().to_vec())
    }

    /// This token has come.
    ///
    /// # Errors
    /// It may not.
    pub fn accept(&mut self, token: u32) -> Result<(), TextError> {
        self.0.consume_token(token).map_err(refused)
    }

    /// Goes on over the tokens that must come next, and says them. None where the tokenizer would cut the text otherwise.
    pub fn skip(&mut self) -> Vec<u32> {
        self.0.consume_ff_tokens()
    }

    /// Whether nothing can follow.
    pub fn is_complete(&self) -> bool {
        self.0.is_stopped()
    }
}

impl Clone for Guide {
    /// Goes its own way, and shares nothing that has to be waited for.
    fn clone(&self) -> Self {
        Self(self.0.deep_clone())
    }
}

impl Environment {
    /// Whether the tokenizer cuts a text that stands in the midst of others into tokens of exactly its bytes.
    fn keeps_bytes(&self) -> bool {
        [" a", "a", "{\"a\": [1, true]}", "\n\n", "é 中"].into_iter().all(|text| {
            let tokens = self.tokens(text).unwrap_or_default();
            self.trie.decode_raw(&tokens) == text.as_bytes()
        })
    }

    fn tokens(&self, text: &str) -> Option<Vec<u32>> {
        self.tokenizer.tokens(&self.tokenizer.guard().protect(text)).ok()
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let text = std::str::from_utf8(bytes).ok().filter(|_| self.canonical);
        let tokens = text.and_then(|text| self.tokens(text)).filter(|tokens| self.trie.decode_raw(tokens) == bytes);
        tokens.unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}

/// Lets nothing but a blank, or a line end with an indentation, stand between the parts of JSON: a model that hesitates would
/// write blanks until it has no tokens left. A schema that says otherwise is left alone.
pub(crate) fn tidy(mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": r" |\n {0,24}"}));
    }
    schema
}

fn refused(e: impl ToString) -> TextError {
    let text = e.to_string();
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    TextError::Grammar(line.chars().take(500).collect())
}
