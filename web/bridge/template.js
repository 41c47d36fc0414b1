// Chat templates in the page, by @huggingface/jinja with a meter in it. It imports nothing (see
// gpu.js): the library's module is handed in. Where the library reads a template otherwise than
// Jinja does, this follows Jinja or refuses.

/**
 * @typedef {{ type: string, value: any, toString(): string }} Value
 * @typedef {Record<string, any> & { type: string }} Node
 * @typedef {{ set(name: string, value: unknown): unknown }} Scope
 * @typedef {{
 *   run(program: Node): Value,
 *   evaluate(node: Node | undefined, scope: Scope): Value,
 *   evaluateBlock(nodes: Node[], scope: Scope): Value,
 *   evaluateFor(node: Node, scope: Scope): Value,
 *   evaluateBinaryExpression(node: Node, scope: Scope): Value,
 *   evaluateCallExpression(node: Node, scope: Scope): Value,
 *   evaluateArguments(nodes: Node[], scope: Scope): [Value[], Map<string, Value>],
 *   applyFilter(value: Value, filter: Node, scope: Scope): Value,
 * }} Interpreter
 * @typedef {{
 *   Environment: new () => Scope,
 *   Interpreter: new (scope: Scope) => Interpreter,
 *   Template: new (source: string) => { parsed: Node },
 * }} LibraryModule
 * @typedef {{
 *   steps: number, made: number, characters: number, items: number, depth: number, seconds: number,
 *   filters: string[], tests: string[], methods: string[], months: string[], days: string[],
 *   width: number,
 * }} Limits
 */

// Python's `str.strip` takes these, JavaScript's `trim` others.
const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
// Statements that put out nothing, though they have a value here.
const SILENT = new Set(["Set", "Macro", "Comment"]);
// Expressions that make a value; all others hand on one that was paid for.
const MAKING = new Set([
  ...["ArrayLiteral", "TupleLiteral", "ObjectLiteral", "BinaryExpression", "CallExpression"],
  ...["CallStatement", "FilterExpression", "FilterStatement"],
]);
const WORDS = new Set(["true", "false", "none", "True", "False", "None"]);

/** What a template does that it must not. */
class TemplateFault extends Error {}

/** A template's own `raise_exception`. */
class TemplateRefusal extends Error {
  name = "TemplateRefusal";
}

/** @param {LibraryModule} library @param {Limits} limits */
function interpreterOf(library, limits) {
  return class Metered extends library.Interpreter {
    #steps = 0;
    #made = 0;
    #longest = 1;
    #end = performance.now() + limits.seconds * 1000;
    /** @type {WeakSet<object>} */
    #looped = new WeakSet();
    /** @type {WeakSet<object>} */
    #owners = new WeakSet();
    /** @type {WeakSet<object>} */
    #guarded = new WeakSet();

    /** @param {number} count */
    #step(count) {
      this.#steps += count + 1;
      if (this.#steps > limits.steps) throw new TemplateFault(`it takes more than ${limits.steps} steps`);
      if (performance.now() > this.#end) throw new TemplateFault(`it takes longer than ${limits.seconds} s`);
    }

    /** @param {number} characters @param {number} items */
    #make(characters, items) {
      this.#longest = Math.max(this.#longest, characters, items);
      this.#made += characters + items;
      if (characters > limits.characters || items > limits.items || this.#made > limits.made) {
        throw new TemplateFault("it makes too much text");
      }
    }

    /** Counts what would be written out. @param {Value} value */
    #weigh(value) {
      let characters = 0;
      let items = 0;
      /** @type {[unknown, number][]} */
      const waiting = [[value, 1]];
      for (let next = waiting.pop(); next; next = waiting.pop()) {
        const held = /** @type {Value} */ (next[0]).value;
        if (typeof held === "string") characters += held.length;
        if (typeof held === "number" && Math.abs(held) > 2 ** 64) {
          throw new TemplateFault("a number has more than 64 bits");
        }
        if (Array.isArray(held) || held instanceof Map) {
          items += (Array.isArray(held) ? held.length : 2 * held.size) + 1;
          if (next[1] > limits.depth) throw new TemplateFault(`a list is more than ${limits.depth} deep`);
          if (items > limits.items) break;
          for (const inner of held.values()) waiting.push([inner, next[1] + 1]);
          if (held instanceof Map) for (const key of held.keys()) characters += String(key).length;
        }
      }
      this.#make(characters, items);
    }

    /** @param {Node | undefined} node @param {Scope} scope @returns {Value} */
    evaluate(node, scope) {
      this.#step(0);
      if (node?.type === "Held") return node.held;
      if (node?.type === "MemberExpression") this.#owners.add(node.object);
      const value = super.evaluate(node, scope);
      if (!node) return value;
      if (value.type === "UndefinedValue" && this.#owners.has(node)) {
        throw new TemplateFault(`${node.value ?? "a value"} is undefined`);
      }
      if (MAKING.has(node.type) || node.property?.type === "SliceExpression") this.#weigh(value);
      if (this.#looped.has(node)) this.#payForLoop(value);
      return value;
    }

    /** @param {Value} value */
    #payForLoop(value) {
      const count = value.value?.length ?? value.value?.size ?? 0;
      if (count > limits.items) throw new TemplateFault("a loop goes through too many items");
      this.#step(count);
    }

    /** @param {Node} node @param {Scope} scope @returns {Value} */
    evaluateFor(node, scope) {
      const { iterable } = node;
      this.#looped.add(iterable.type === "SelectExpression" ? iterable.lhs : iterable);
      return super.evaluateFor(node, scope);
    }

    /** @param {Node[]} nodes @param {Scope} scope @returns {Value} */
    evaluateBlock(nodes, scope) {
      this.#step(nodes.length);
      const whole = super.evaluateBlock([], scope);
      for (const node of nodes) {
        const value = this.evaluate(node, scope);
        if (SILENT.has(node.type)) continue;
        whole.value += written(value);
        this.#make(whole.value.length, 0);
      }
      return whole;
    }

    /** Texts are joined as in Python. @param {Node} node @param {Scope} scope @returns {Value} */
    evaluateBinaryExpression(node, scope) {
      const sign = node.operator.value;
      if (sign !== "~" && sign !== "+") return super.evaluateBinaryExpression(node, scope);
      const left = this.evaluate(node.left, scope);
      const right = this.evaluate(node.right, scope);
      if (sign === "+" && (left.type === "StringValue") !== (right.type === "StringValue")) {
        throw new TemplateFault("it adds text to what is no text");
      }
      if (sign === "~") {
        const whole = super.evaluateBlock([], scope);
        whole.value = written(left) + written(right);
        return whole;
      }
      const held = { ...node, left: { type: "Held", held: left }, right: { type: "Held", held: right } };
      return super.evaluateBinaryExpression(held, scope);
    }

    /** @param {Node} node @param {Scope} scope @returns {Value} */
    evaluateCallExpression(node, scope) {
      const { callee } = node;
      if (callee.type !== "MemberExpression") return super.evaluateCallExpression(node, scope);
      const name = callee.computed ? null : callee.property.value;
      if (!limits.methods.includes(name)) throw new TemplateFault(`it calls ${name}, which chat templates do not need`);
      this.#guarded.add(node.args);
      if (!/^[lr]?strip$/.test(name)) return super.evaluateCallExpression(node, scope);
      const text = this.evaluate(callee.object, scope);
      const [args] = this.evaluateArguments(node.args, scope);
      return this.#stripped(text, name, args[0], scope);
    }

    /** @param {Value} text @param {string} name @param {Value | undefined} set @param {Scope} scope */
    #stripped(text, name, set, scope) {
      const whole = super.evaluateBlock([], scope);
      if (typeof text.value !== "string") throw new TemplateFault("it strips what is no text");
      whole.value = strip(text.value, name, set?.value ?? null);
      return whole;
    }

    /** @param {Value} value @param {Node} filter @param {Scope} scope @returns {Value} */
    applyFilter(value, filter, scope) {
      const name = filter.type === "CallExpression" ? filter.callee.value : filter.value;
      if (!limits.filters.includes(name)) throw new TemplateFault(`there is no filter ${name}`);
      if (name === "trim" && typeof value.value === "string") {
        return this.#stripped(value, "strip", undefined, scope);
      }
      if (filter.type === "CallExpression" && name !== "default") this.#guarded.add(filter.args);
      return super.applyFilter(value, filter, scope);
    }

    /**
     * Methods and filters with arguments make at most the longest value times the longest argument.
     * @param {Node[]} nodes @param {Scope} scope @returns {[Value[], Map<string, Value>]}
     */
    evaluateArguments(nodes, scope) {
      const found = super.evaluateArguments(nodes, scope);
      if (!this.#guarded.has(nodes)) return found;
      for (const { value } of [...found[0], ...found[1].values()]) {
        if (typeof value === "number" && value > limits.width) {
          throw new TemplateFault(`it asks for a width of more than ${limits.width}`);
        }
        if (typeof value === "string" && value.length * this.#longest > limits.made) {
          throw new TemplateFault("a value grows too much");
        }
      }
      return found;
    }
  };
}

/** As Python's `str` writes it. @param {Value} value */
function written(value) {
  switch (value.type) {
    case "UndefinedValue":
      return "";
    case "NullValue":
      return "None";
    case "BooleanValue":
      return value.value ? "True" : "False";
    case "StringValue":
    case "IntegerValue":
    case "FloatValue":
      return value.toString();
    default:
      throw new TemplateFault("it puts out a list or a function, which reads otherwise in each language");
  }
}

/** As Python's `str.strip`. @param {string} text @param {string} name @param {string | null} set */
function strip(text, name, set) {
  const all = set === null ? `[${SPACE}]` : oneOf(set);
  const left = name === "rstrip" ? text : text.replace(new RegExp(`^${all}+`, "u"), "");
  if (name === "lstrip") return left;
  const characters = Array.from(left);
  const one = new RegExp(`^${all}$`, "u");
  // From the end by hand: a regular expression tries each run of spaces inside the text.
  while (characters.length && one.test(characters[characters.length - 1])) characters.pop();
  return characters.join("");
}

/** @param {string} set */
function oneOf(set) {
  const each = Array.from(set, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
  return each.length ? `[${each.join("")}]` : "(?!)";
}

/** Today in English, as the native side has it. @param {Limits} limits @param {string} form */
function strftimeNow({ months, days }, form) {
  const now = new Date();
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const month = months[now.getMonth()];
  const day = days[(now.getDay() + 6) % 7];
  /** @type {Record<string, string>} */
  const values = {
    ...{ Y: String(now.getFullYear()), m: two(now.getMonth() + 1), d: two(now.getDate()), "%": "%" },
    ...{ H: two(now.getHours()), M: two(now.getMinutes()), S: two(now.getSeconds()) },
    ...{ B: month, b: month.slice(0, 3), A: day, a: day.slice(0, 3) },
  };
  return form.slice(0, 100).replace(/%([YmdHMSBbAa%])/g, (_, letter) => values[letter]);
}

/** @param {Limits} limits @param {number[]} bounds */
function range({ items }, ...bounds) {
  const [start, stop, step] = bounds.length === 1 ? [0, bounds[0], 1] : [bounds[0], bounds[1], bounds[2] ?? 1];
  if (!bounds.length || ![start, stop, step].every(Number.isSafeInteger) || !step) {
    throw new TemplateFault("range() takes one to three whole numbers");
  }
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > items) throw new TemplateFault(`a loop goes through more than ${items} items`);
  return Array.from({ length: count }, (_, index) => start + index * step);
}

/** See what is in a parsed template before it runs. @param {unknown} node @param {Limits} limits */
function check(node, limits) {
  if (node instanceof Map) for (const [key, value] of node) [key, value].forEach((n) => check(n, limits));
  if (Array.isArray(node)) node.forEach((each) => check(each, limits));
  if (!node || typeof node !== "object" || Array.isArray(node) || node instanceof Map) return;
  const { type, test } = /** @type {Node} */ (node);
  if (type === "TestExpression" && !limits.tests.includes(test.value)) {
    throw new TemplateFault(`there is no test ${test.value}`);
  }
  Object.values(node).forEach((each) => check(each, limits));
}

/** A parsed template. */
export class PageTemplate {
  #library;
  #limits;
  #parsed;
  #interpreter;

  /** @param {LibraryModule} library @param {Limits} limits @param {string} source */
  constructor(library, limits, source) {
    this.#library = library;
    this.#limits = limits;
    this.#parsed = new library.Template(source).parsed;
    check(this.#parsed, limits);
    this.#interpreter = interpreterOf(library, limits);
  }

  /** @param {string} variables a JSON object */
  render(variables) {
    const limits = this.#limits;
    const scope = new this.#library.Environment();
    for (const word of WORDS) scope.set(word, { t: true, f: false, n: null }[word[0].toLowerCase()]);
    scope.set("range", (/** @type {number[]} */ ...bounds) => range(limits, ...bounds));
    scope.set("strftime_now", (/** @type {string} */ form) => strftimeNow(limits, String(form)));
    scope.set("raise_exception", (/** @type {unknown} */ message) => {
      throw new TemplateRefusal(String(message ?? "").slice(0, 500));
    });
    for (const [name, value] of Object.entries(JSON.parse(variables))) scope.set(name, value);
    return new this.#interpreter(scope).run(this.#parsed).value;
  }
}

/** @param {LibraryModule} library @param {string} source @param {string} limits JSON */
export function createTemplate(library, source, limits) {
  return new PageTemplate(library, JSON.parse(limits), source);
}
