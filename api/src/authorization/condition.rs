//! Conditions of rules in CEL (operator.md 10.1): compiled once per config, evaluated over the caller's claims, the
//! item's annotations and the arguments of a call. The library bounds nothing, so the work is bounded here: what could
//! run for long does not compile (`shape`), and what would take too many steps for the values at hand is an error.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Mutex},
    thread,
};

use cel::{
    Context, Env, IdedExpr, Value as CelValue,
    common::types::CelBool,
    extractors::This,
    parser::{ParseErrors, Parser},
};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use shape::Shape;
use values::Size;

mod shape;
mod values;

pub(super) use values::arguments;

/// Longest condition, characters.
pub const MAX_CONDITION: usize = 1024;
/// Deepest nesting that the parser takes.
const MAX_DEPTH: u16 = 32;
/// Stack of the thread that compiles: the parser calls itself for each level and link of the text, which may have
/// [`MAX_CONDITION`] of them, and a worker's stack is too small for that.
const COMPILER_STACK: usize = 64 << 20;
/// Steps of one evaluation at most. A step is a comparison or a copy of one value, or of 16 bytes of text; by far most
/// conditions stay under a thousandth of it.
const MAX_STEPS: u64 = 4_000_000;
/// Steps of all evaluations for one decision at most.
pub(super) const DECISION_STEPS: u64 = 4 * MAX_STEPS;
/// Largest compiled pattern of `matches`, bytes.
const MAX_PATTERN: usize = 64 * 1024;
/// Conditions whose check is remembered, because the same ones are judged again and again: at every write, by every
/// reconcile that a policy concerns.
const MAX_CHECKED: usize = 4096;

/// Variable with the claims of the verified token.
const CLAIMS: &str = "claims";
/// Variable with the annotations of the tool or resource.
const ANNOTATIONS: &str = "annotations";
/// Variable with the arguments of the call.
const ARGUMENTS: &str = "arguments";

static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

static CHECKED: LazyLock<Mutex<HashMap<String, Result<ConditionUse, ConditionError>>>> =
    LazyLock::new(Mutex::default);

/// Why a condition cannot be used. The texts continue "the condition …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// More than [`MAX_CONDITION`] characters.
    #[error("is longer than {MAX_CONDITION} characters")]
    TooLong,
    /// Not CEL.
    #[error("does not compile: {0}")]
    Syntax(String),
    /// A name that stands for nothing.
    #[error("names {0:?}; there are claims, annotations and arguments")]
    Variable(String),
    /// A function that is not offered.
    #[error(
        "calls {0:?}; there are size, contains, startsWith, endsWith, matches, has, all, exists, exists_one, map, filter, string, int, uint, double, bool, type and dyn"
    )]
    Function(String),
    /// A comprehension inside another: the steps would grow with a power of the size of the arguments.
    #[error(
        "has all, exists, exists_one, map or filter inside another or after another; write them side by side"
    )]
    Nested,
    /// `matches` with a pattern that is no literal, or none.
    #[error("has a pattern for matches that cannot be used: {0}")]
    Pattern(String),
    /// The process cannot start the thread that compiles.
    #[error("cannot be compiled now; try again")]
    Thread,
    /// Valid CEL that is not offered.
    #[error("uses {0}, which is not offered here")]
    Unsupported(&'static str),
}

/// What a condition is evaluated over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    /// Claims; empty without a verified token.
    pub(super) claims: &'a Map<String, Value>,
    /// Annotations; empty without any.
    pub(super) annotations: &'a Map<String, Value>,
    /// Arguments of the call; `None` when they cannot be used.
    pub(super) arguments: Option<&'a Value>,
}

/// A condition, ready to evaluate.
pub(super) struct Condition {
    expression: IdedExpr,
    shape: Shape,
    patterns: Arc<HashMap<String, Regex>>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.shape).finish()
    }
}

/// Holds a condition against what can be compiled and bounded.
///
/// # Errors
/// [`ConditionError`].
pub fn check(text: &str) -> Result<ConditionUse, ConditionError> {
    if let Ok(known) = CHECKED.lock()
        && let Some(found) = known.get(text)
    {
        return found.clone();
    }
    let found = Condition::compile(text).map(|condition| ConditionUse {
        arguments: condition.shape.arguments,
        annotations: condition.shape.annotations,
        claims: condition.shape.claims,
    });
    // What the process could not do says nothing about the text, and a text that is too long is not kept.
    if !matches!(found, Err(ConditionError::Thread | ConditionError::TooLong))
        && let Ok(mut known) = CHECKED.lock()
    {
        if known.len() >= MAX_CHECKED {
            known.clear();
        }
        known.insert(text.to_owned(), found.clone());
    }
    found
}

/// Which variables a condition names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionUse {
    /// `arguments`
    pub arguments: bool,
    /// `annotations`
    pub annotations: bool,
    /// `claims`
    pub claims: bool,
}

impl Condition {
    /// Compiles a condition.
    pub(super) fn compile(text: &str) -> Result<Self, ConditionError> {
        if text.chars().nth(MAX_CONDITION).is_some() {
            return Err(ConditionError::TooLong);
        }
        let compiler = thread::Builder::new().stack_size(COMPILER_STACK);
        thread::scope(|scope| {
            let compiled = compiler.spawn_scoped(scope, || Self::compile_here(text));
            let compiled = compiled.map_err(|_| ConditionError::Thread)?.join();
            // The parser is not ours; a panic of it is the text's fault and not the end of the process.
            compiled.unwrap_or_else(|_| Err(ConditionError::Syntax("the parser gave up".to_owned())))
        })
    }

    fn compile_here(text: &str) -> Result<Self, ConditionError> {
        let parser = Parser::new().max_recursion_depth(MAX_DEPTH);
        let expression = parser.parse(text).map_err(|errors| syntax(&errors))?;
        let shape = Shape::of(&expression, text.len())?;
        let compiled = |pattern: &String| {
            let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
            let regex = compiled.map_err(|error| ConditionError::Pattern(one_line(&error.to_string())))?;
            Ok((pattern.clone(), regex))
        };
        let patterns = shape.patterns.iter().map(compiled).collect::<Result<_, _>>()?;
        Ok(Self {
            expression,
            shape,
            patterns: Arc::new(patterns),
        })
    }

    /// True when it cannot be evaluated without the arguments of a call.
    pub(super) fn names_arguments(&self) -> bool {
        self.shape.arguments
    }

    /// Whether it holds; `None` when the evaluation is an error, too long for itself or for the steps that are `left`, or has
    /// another result than true and false.
    pub(super) fn holds(&self, inputs: &Inputs<'_>, left: &Cell<u64>) -> Option<bool> {
        let mut size = Size::default();
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        if self.shape.claims {
            context.add_variable_as_val(CLAIMS, values::object(inputs.claims, &mut size));
        }
        if self.shape.annotations {
            context.add_variable_as_val(ANNOTATIONS, values::object(inputs.annotations, &mut size));
        }
        if self.shape.arguments {
            context.add_variable_as_val(ARGUMENTS, values::value(inputs.arguments?, &mut size));
        }
        let steps = self.shape.steps(&size);
        if steps > MAX_STEPS {
            return None;
        }
        left.set(left.get().checked_sub(steps)?);
        if !self.patterns.is_empty() {
            let patterns = Arc::clone(&self.patterns);
            let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| -> bool {
                patterns
                    .get(pattern.as_str())
                    .is_some_and(|regex| regex.is_match(&text))
            };
            context.add_function(shape::MATCHES, matches).ok()?;
        }
        let result = CelValue::resolve_val(&self.expression, &context).ok()?;
        result.downcast_ref::<CelBool>().map(|holds| *holds.inner())
    }
}

fn syntax(errors: &ParseErrors) -> ConditionError {
    let first = errors.errors.first();
    let what = first.map(|error| format!("{} (character {})", one_line(&error.msg), error.pos.1));
    ConditionError::Syntax(what.unwrap_or_default())
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(200).collect()
}

#[cfg(test)]
mod tests;
