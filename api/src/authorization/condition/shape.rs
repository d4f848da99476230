//! What a condition is made of: which variables it names, and how its steps grow with the size of their values. Pure
//! over the syntax tree. A comprehension may neither stand in another nor follow on another, so the steps grow with at
//! most the square of the size and can be counted before anything runs.

use cel::{
    IdedExpr,
    common::ast::{ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators},
};

use super::{ANNOTATIONS, ARGUMENTS, CLAIMS, ConditionError, values::Size};

/// The function with a pattern, which is compiled with the condition.
pub(super) const MATCHES: &str = "matches";
/// What a pattern costs at worst beside a plain search in the same text: it may be in many states at once.
const SCANS_OF_MATCHES: usize = 16;

/// Deepest tree: each level is one call on the stack when it runs.
const MAX_LEVELS: usize = 64;
/// Where macros keep what they have so far.
const ACCUMULATOR: &str = "@result";
/// Functions beside the operators.
const FUNCTIONS: [&str; 12] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    MATCHES,
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "type",
    "dyn",
];
/// Operators that look at no more than their own value.
const CHEAP: [&str; 6] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NEGATE,
    operators::NOT_STRICTLY_FALSE,
];
/// Operators that may look at whole values.
const SCANNING: [&str; 13] = [
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::INDEX,
    operators::IN,
];
/// Names of types, for `type(x) == string`.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// What the walk finds.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) claims: bool,
    pub(super) annotations: bool,
    pub(super) arguments: bool,
    /// Literal patterns of `matches`.
    pub(super) patterns: Vec<String>,
    once: Work,
    for_each: Work,
    comprehensions: u64,
    /// How often a value is named, which is how often one can be put into another.
    mentions: u64,
    /// Values are put together, so that one can be larger than all that came in.
    builds: bool,
    /// A comprehension gives a list of what it made of each element.
    collects: bool,
    literals: u64,
}

#[derive(Debug, Default)]
struct Work {
    nodes: u64,
    scans: u64,
}

/// Where the walk is.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Variables of the comprehension around it.
    bound: &'a [&'a str],
    /// In what is done for each element.
    inside: bool,
    /// Where no comprehension may stand.
    closed: bool,
    level: usize,
}

impl Shape {
    /// Walks a tree that came from a text of this many bytes.
    pub(super) fn of(expression: &IdedExpr, text: usize) -> Result<Self, ConditionError> {
        let mut shape = Self {
            literals: text as u64,
            ..Self::default()
        };
        let top = Place {
            bound: &[],
            inside: false,
            closed: false,
            level: 0,
        };
        shape.walk(expression, top)?;
        Ok(shape)
    }

    /// The most steps that values of this size can cost.
    pub(super) fn steps(&self, size: &Size) -> u64 {
        let growth = if self.builds { self.mentions.max(1) } else { 1 };
        let weight = size.weight.saturating_add(self.literals).saturating_mul(growth);
        let elements = size.values.saturating_add(self.literals).saturating_mul(growth);
        let result = if self.collects {
            weight.saturating_mul(elements)
        } else {
            weight
        };
        let each = self
            .for_each
            .nodes
            .saturating_add(self.for_each.scans.saturating_mul(weight));
        self.once
            .nodes
            .saturating_add(self.once.scans.saturating_mul(result))
            .saturating_add(self.comprehensions.saturating_mul(weight))
            .saturating_add(if self.comprehensions == 0 {
                0
            } else {
                elements.saturating_mul(each)
            })
    }

    fn count(&mut self, place: Place<'_>, scans: bool) {
        let work = if place.inside {
            &mut self.for_each
        } else {
            &mut self.once
        };
        work.nodes += 1;
        work.scans += u64::from(scans);
    }

    fn walk(&mut self, node: &IdedExpr, place: Place<'_>) -> Result<(), ConditionError> {
        if place.level > MAX_LEVELS {
            return Err(ConditionError::Syntax(format!(
                "nested deeper than {MAX_LEVELS} levels"
            )));
        }
        let below = Place {
            level: place.level + 1,
            ..place
        };
        match &node.expr {
            Expr::Literal(_) => self.count(place, false),
            Expr::Ident(name) => {
                self.count(place, false);
                self.name(name, place)?;
            }
            Expr::Select(select) => {
                self.count(place, false);
                self.walk(&select.operand, below)?;
            }
            Expr::Call(call) => {
                self.call(&call.func_name, (call.target.as_deref(), &call.args), place)?;
                let parts = call.target.as_deref().into_iter().chain(&call.args);
                parts.into_iter().try_for_each(|part| self.walk(part, below))?;
            }
            Expr::List(list) => {
                self.builds |= !list.elements.iter().all(is_literal);
                self.count(place, true);
                list.elements
                    .iter()
                    .try_for_each(|element| self.walk(element, below))?;
            }
            Expr::Map(map) => {
                self.builds = true;
                self.count(place, true);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(ConditionError::Unsupported("a message literal"));
                    };
                    self.walk(&entry.key, below)?;
                    self.walk(&entry.value, below)?;
                }
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, below)?,
            Expr::Struct(_) => return Err(ConditionError::Unsupported("a message literal")),
            Expr::Unspecified => return Err(ConditionError::Unsupported("an empty expression")),
        }
        Ok(())
    }

    fn name(&mut self, name: &str, place: Place<'_>) -> Result<(), ConditionError> {
        if place.bound.contains(&name) {
            self.mentions += u64::from(name != ACCUMULATOR);
            return Ok(());
        }
        match name {
            CLAIMS => self.claims = true,
            ANNOTATIONS => self.annotations = true,
            ARGUMENTS => self.arguments = true,
            _ if TYPES.contains(&name) => return Ok(()),
            _ => return Err(ConditionError::Variable(name.to_owned())),
        }
        self.mentions += 1;
        Ok(())
    }

    fn call(
        &mut self,
        function: &str,
        (target, arguments): (Option<&IdedExpr>, &[IdedExpr]),
        place: Place<'_>,
    ) -> Result<(), ConditionError> {
        let scans = !CHEAP.contains(&function);
        if scans && !SCANNING.contains(&function) && !FUNCTIONS.contains(&function) {
            return Err(ConditionError::Function(function.to_owned()));
        }
        self.count(place, scans);
        if function == MATCHES {
            for _ in 1..SCANS_OF_MATCHES {
                self.count(place, true);
            }
            let pattern = match (target, arguments) {
                (Some(_), [pattern]) | (None, [_, pattern]) => literal_text(pattern),
                _ => None,
            };
            let missing = || ConditionError::Pattern("it must be one literal string".to_owned());
            self.patterns.push(pattern.ok_or_else(missing)?);
        }
        // What macros write with their accumulator is counted as `collects`.
        let own = arguments.first().is_some_and(is_accumulator);
        self.builds |= function == operators::ADD && !own;
        Ok(())
    }

    fn comprehension(
        &mut self,
        comprehension: &ComprehensionExpr,
        place: Place<'_>,
    ) -> Result<(), ConditionError> {
        let names = [Some(&comprehension.iter_var), comprehension.iter_var2.as_ref()];
        let own = [CLAIMS, ANNOTATIONS, ARGUMENTS];
        if names
            .into_iter()
            .flatten()
            .any(|name| own.contains(&name.as_str()))
        {
            return Err(ConditionError::Variable(comprehension.iter_var.clone()));
        }
        if place.closed {
            return Err(ConditionError::Nested);
        }
        self.comprehensions += 1;
        self.collects |= matches!(comprehension.accu_init.expr, Expr::List(_));
        let closed = Place {
            closed: true,
            ..place
        };
        self.walk(&comprehension.iter_range, closed)?;
        self.walk(&comprehension.accu_init, closed)?;
        let mut bound = place.bound.to_vec();
        bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
        let each = Place {
            bound: &bound,
            inside: true,
            ..closed
        };
        self.walk(&comprehension.loop_cond, each)?;
        self.walk(&comprehension.loop_step, each)?;
        self.walk(
            &comprehension.result,
            Place {
                inside: place.inside,
                ..each
            },
        )
    }
}

fn is_literal(node: &IdedExpr) -> bool {
    matches!(node.expr, Expr::Literal(_))
}

fn is_accumulator(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Ident(name) if name == ACCUMULATOR)
}

fn literal_text(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}
