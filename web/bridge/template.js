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
 *   evaluateUnaryExpression(node: Node, scope: Scope): Value,
 *   evaluateTestExpression(node: Node, scope: Scope): Value,
 *   evaluateSliceExpression(object: Value, node: Node, scope: Scope): Value,
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
 *   steps: number, made: number, read: number, characters: number, items: number, depth: number,
 *   seconds: number,
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
// Filters that go through next to nothing.
const CHEAP = new Set(["abs", "default", "first", "last", "length", "safe"]);
// Going through an item takes as long as reading so many characters, a turn of a loop so many steps.
const ITEM_CHARACTERS = 64;
const TURN_STEPS = 16;
const MOST_ATTRIBUTE = 1000;
const MOST_NUMBER_CHARACTERS = 100;
const MOST_STRIPPED = 64;
const MOST_TITLE = 1 << 20;
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
    #read = 0;
    #end = performance.now() + limits.seconds * 1000;
    /** @type {WeakSet<object>} */
    #looped = new WeakSet();
    /** @type {WeakSet<object>} */
    #owners = new WeakSet();
    /** Arguments to be checked: of what method or filter, and how long is what it works on.
     * @type {WeakMap<object, { name: string, size: number }>} */
    #guarded = new WeakMap();

    /** @param {number} count */
    #step(count) {
      this.#steps += count + 1;
      if (this.#steps > limits.steps) throw new TemplateFault(`it takes more than ${limits.steps} steps`);
      if (performance.now() > this.#end) throw new TemplateFault(`it takes longer than ${limits.seconds} s`);
    }

    /** @param {number} characters @param {number} items */
    #make(characters, items) {
      this.#made += characters + items;
      if (characters > limits.characters || items > limits.items || this.#made > limits.made) {
        throw new TemplateFault("it makes too much text");
      }
    }

    /** Counts characters that are about to be gone through. @param {number} characters */
    #reading(characters) {
      this.#read += characters;
      if (this.#read > limits.read) {
        throw new TemplateFault(`it compares more than ${limits.read} characters`);
      }
    }

    /** Characters and items as they would be written out. @param {unknown} value */
    #measured(value) {
      let characters = 0;
      let items = 0;
      /** @type {[unknown, number][]} */
      const waiting = [[value, 1]];
      for (let next = waiting.pop(); next; next = waiting.pop()) {
        const held = /** @type {Value | undefined} */ (next[0])?.value;
        if (typeof held === "string") characters += held.length;
        if (typeof held === "number" && Math.abs(held) > 2 ** 64) {
          throw new TemplateFault("a number has more than 64 bits");
        }
        if (Array.isArray(held) || held instanceof Map) {
          items += (Array.isArray(held) ? held.length : 2 * held.size) + 1;
          if (next[1] > limits.depth) throw new TemplateFault(`a list is more than ${limits.depth} deep`);
          if (items > limits.items) throw new TemplateFault("a value holds too many items");
          for (const inner of held.values()) waiting.push([inner, next[1] + 1]);
          if (held instanceof Map) for (const key of held.keys()) characters += String(key).length;
        }
      }
      this.#step(items >> 1); // this walk takes time itself
      return { characters, items };
    }

    /** Counts what was made. @param {Value} value */
    #weigh(value) {
      const { characters, items } = this.#measured(value);
      this.#make(characters, items);
    }

    /** Characters, and items as so many. @param {Value} value */
    #weight(value) {
      const { characters, items } = this.#measured(value);
      return 1 + characters + items * ITEM_CHARACTERS;
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
      this.#step(count * TURN_STEPS);
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
        const text = written(value);
        this.#make(text.length, 0);
        whole.value += text;
      }
      return whole;
    }

    /** Texts are joined, and values compared, as in Python.
     * @param {Node} node @param {Scope} scope @returns {Value} */
    evaluateBinaryExpression(node, scope) {
      const sign = node.operator.value;
      if (sign === "and" || sign === "or") return super.evaluateBinaryExpression(node, scope);
      const left = this.evaluate(node.left, scope);
      const right = this.evaluate(node.right, scope);
      const held = { ...node, left: { type: "Held", held: left }, right: { type: "Held", held: right } };
      const negated = sign === "!=" || sign === "not in";
      switch (sign) {
        case "==":
        case "!=":
          return this.#truth(this.#equal(left, right) !== negated, scope);
        case "in":
        case "not in": {
          const found = this.#has(right, left);
          if (found !== null) return this.#truth(found !== negated, scope);
          break;
        }
        case "~": {
          const whole = super.evaluateBlock([], scope);
          whole.value = written(left) + written(right);
          return whole;
        }
        case "+":
          if ((left.type === "StringValue") !== (right.type === "StringValue")) {
            throw new TemplateFault("it adds text to what is no text");
          }
      }
      return super.evaluateBinaryExpression(held, scope);
    }

    /** @param {boolean} value @param {Scope} scope @returns {Value} */
    #truth(value, scope) {
      const held = super.evaluateBlock([], scope);
      held.value = value ? "" : "x";
      const node = { type: "UnaryExpression", operator: { value: "not" }, argument: { type: "Held", held } };
      return super.evaluateUnaryExpression(node, scope);
    }

    /** @param {Value} left @param {Value} right @returns {boolean} */
    #equal(left, right) {
      this.#step(0);
      const [a, b] = [left.value, right.value];
      if (isNumber(left) && isNumber(right)) return Number(a) === Number(b);
      if (Array.isArray(a) && Array.isArray(b)) {
        return a.length === b.length && a.every((each, index) => this.#equal(each, b[index]));
      }
      if (left.type !== right.type) return false;
      if (typeof a === "string") {
        if (a.length === b.length) this.#reading(a.length);
        return a === b;
      }
      if (left.type !== "ObjectValue") return a === b;
      if (a.size !== b.size) return false;
      return Array.from(a.keys()).every((key) => b.has(key) && this.#equal(a.get(key), b.get(key)));
    }

    /** Null where the library is to say what is wrong. @param {Value} whole @param {Value} part */
    #has(whole, part) {
      const held = whole.value;
      if (typeof held === "string" && typeof part.value === "string") {
        this.#reading(held.length + part.value.length);
        return held.includes(part.value);
      }
      if (Array.isArray(held)) {
        this.#reading(held.length * ITEM_CHARACTERS);
        return held.some((each) => this.#equal(each, part));
      }
      if (whole.type === "ObjectValue") return typeof part.value === "string" && held.has(part.value);
      return null;
    }

    /** @param {Value} object @param {Node} node @param {Scope} scope @returns {Value} */
    evaluateSliceExpression(object, node, scope) {
      const text = object.value;
      if (typeof text !== "string") return super.evaluateSliceExpression(object, node, scope);
      const parts = [node.start, node.stop, node.step].map((part) => this.evaluate(part, scope));
      this.#reading(text.length);
      const whole = parts.every(({ type }) => type === "IntegerValue" || type === "UndefinedValue");
      if (whole && parts[2].type === "UndefinedValue" && !/[\ud800-\udfff]/.test(text)) {
        const found = super.evaluateBlock([], scope);
        found.value = text.slice(parts[0].value, parts[1].value);
        return found;
      }
      // The library takes it apart first, character by character.
      this.#reading(text.length * 16);
      const [start, stop, step] = parts.map((held) => ({ type: "Held", held }));
      return super.evaluateSliceExpression(object, { ...node, start, stop, step }, scope);
    }

    /** @param {Node} node @param {Scope} scope @returns {Value} */
    evaluateTestExpression(node, scope) {
      const held = this.evaluate(node.operand, scope);
      if (typeof held.value === "string") this.#reading(held.value.length);
      return super.evaluateTestExpression({ ...node, operand: { type: "Held", held } }, scope);
    }

    /** @param {Node} node @param {Scope} scope @returns {Value} */
    evaluateCallExpression(node, scope) {
      const { callee } = node;
      if (callee.type !== "MemberExpression") return super.evaluateCallExpression(node, scope);
      const name = callee.computed ? null : callee.property.value;
      if (!limits.methods.includes(name)) throw new TemplateFault(`it calls ${name}, which chat templates do not need`);
      this.#owners.add(callee.object);
      const held = this.evaluate(callee.object, scope);
      const text = typeof held.value === "string" ? held.value : "";
      this.#guarded.set(node.args, { name, size: text.length + 1 });
      if (/^[lr]?strip$/.test(name)) {
        const [args] = this.evaluateArguments(node.args, scope);
        return this.#stripped(held, name, args[0], scope);
      }
      if (name === "title") checkTitle(text);
      if (name === "replace" || name === "split") this.#reading(2 * text.length);
      if (name === "split") {
        const [args] = this.evaluateArguments(node.args, scope);
        if (hasMore(text, args[0]?.value ?? null, limits.items)) {
          throw new TemplateFault(`it splits a text into more than ${limits.items} parts`);
        }
      }
      const object = { type: "Held", held };
      return super.evaluateCallExpression({ ...node, callee: { ...callee, object } }, scope);
    }

    /** @param {Value} text @param {string} name @param {Value | undefined} set @param {Scope} scope */
    #stripped(text, name, set, scope) {
      const whole = super.evaluateBlock([], scope);
      if (typeof text.value !== "string") throw new TemplateFault("it strips what is no text");
      whole.value = strip(text.value, name, set?.value ?? null);
      this.#reading((text.value.length - whole.value.length) * 16);
      return whole;
    }

    /** @param {Value} value @param {Node} filter @param {Scope} scope @returns {Value} */
    applyFilter(value, filter, scope) {
      const called = filter.type === "CallExpression";
      const name = called ? filter.callee.value : filter.value;
      if (!limits.filters.includes(name)) throw new TemplateFault(`there is no filter ${name}`);
      const held = value.value;
      const size = held?.length ?? held?.size ?? 0;
      if (!CHEAP.has(name)) {
        const times = name === "sort" || name === "dictsort" ? Math.log2(size + 2) : 1;
        this.#reading(Math.round(this.#weight(value) * times));
      }
      if (name === "trim" && typeof held === "string") {
        const [args] = called ? this.evaluateArguments(filter.args, scope) : [[]];
        return this.#stripped(value, "strip", args[0], scope);
      }
      if (typeof held === "string") this.#checkText(held, name, called);
      if (name === "tojson") this.#checkJson(value, called ? filter.args : []);
      if (called && name !== "default") this.#guarded.set(filter.args, { name, size });
      return super.applyFilter(value, filter, scope);
    }

    /** @param {string} text @param {string} name @param {boolean} called */
    #checkText(text, name, called) {
      if ((name === "int" || name === "float") && text.length > MOST_NUMBER_CHARACTERS) {
        throw new TemplateFault(`it reads a number of more than ${MOST_NUMBER_CHARACTERS} characters`);
      }
      if (name === "title") checkTitle(text);
      const most = limits.characters / (called ? limits.width : 4);
      if (name === "indent" && hasMore(text, "\n", Math.min(limits.items, most))) {
        throw new TemplateFault("it indents too many lines");
      }
    }

    /** Counts the space that JSON sets between items. @param {Value} value @param {Node[]} args */
    #checkJson(value, args) {
      const indent = args.find((each) => each.key?.value === "indent")?.value;
      const width = indent?.type === "IntegerLiteral" ? indent.value : indent ? limits.width : 0;
      const separators = args.some((each) => each.key?.value === "separators");
      const between = 1 + 2 * (separators ? limits.width : 2);
      let space = 0;
      /** @type {[any, number][]} */
      const waiting = [[value, 1]];
      for (let next = waiting.pop(); next; next = waiting.pop()) {
        const held = next[0]?.value;
        if (!Array.isArray(held) && !(held instanceof Map)) continue;
        const count = Array.isArray(held) ? held.length : held.size;
        space += (count + 1) * (width * next[1] + between);
        for (const inner of held.values()) waiting.push([inner, next[1] + 1]);
      }
      if (space > limits.characters) throw new TemplateFault("it indents too many items");
      if (args.length) this.#reading(8 * this.#weight(value));
    }

    /**
     * What methods and filters are given, checked before they work with it.
     * @param {Node[]} nodes @param {Scope} scope @returns {[Value[], Map<string, Value>]}
     */
    evaluateArguments(nodes, scope) {
      const found = super.evaluateArguments(nodes, scope);
      const guarded = this.#guarded.get(nodes);
      if (!guarded) return found;
      const { name, size } = guarded;
      for (const each of [...found[0], ...found[1].values()]) {
        this.#reading(this.#weight(each));
        const { value } = each;
        if (typeof value === "number" && (name === "indent" || name === "tojson") && !(value <= limits.width)) {
          throw new TemplateFault(`it asks for a width of more than ${limits.width}`);
        }
        if (typeof value !== "string") continue;
        if ((name === "replace" || name === "join") && value.length * size > limits.made) {
          throw new TemplateFault("a value grows too much");
        }
        if (name === "map" || name === "sort" || name === "unique") {
          if (value.length > MOST_ATTRIBUTE) throw new TemplateFault("an attribute is too long");
          this.#step(Math.round(value.split(".").length * size * Math.log2(size + 2)));
        }
      }
      return found;
    }
  };
}

/** @param {Value} value */
function isNumber({ type }) {
  return type === "IntegerValue" || type === "FloatValue" || type === "BooleanValue";
}

/** @param {string} text */
function checkTitle(text) {
  if (text.length > MOST_TITLE) {
    throw new TemplateFault(`it makes a title of more than ${MOST_TITLE} characters`);
  }
}

/** Whether there are more parts than `most`, by a text or by space. @param {string} text
 * @param {unknown} separator @param {number} most */
function hasMore(text, separator, most) {
  let parts = 1;
  if (typeof separator === "string" && separator) {
    for (let at = text.indexOf(separator); at >= 0 && parts <= most; parts += 1) {
      at = text.indexOf(separator, at + separator.length);
    }
  } else {
    const words = /\S+/g;
    while (parts <= most && words.test(text)) parts += 1;
  }
  return parts > most;
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
  const taken = new Set();
  for (const character of set ?? "") {
    taken.add(character);
    if (taken.size > MOST_STRIPPED) {
      throw new TemplateFault(`it strips more than ${MOST_STRIPPED} different characters`);
    }
  }
  const space = new RegExp(`^[${SPACE}]$`, "u");
  const isTaken = (/** @type {string} */ one) => (set === null ? space.test(one) : taken.has(one));
  let [start, end] = [0, text.length];
  // By hand: a regular expression tries each run of spaces inside the text.
  while (name !== "rstrip" && start < end) {
    const one = String.fromCodePoint(text.codePointAt(start) ?? 0);
    if (!isTaken(one)) break;
    start += one.length;
  }
  while (name !== "lstrip" && end > start) {
    const pair = end - start > 1 && /^[\ud800-\udbff][\udc00-\udfff]$/.test(text.slice(end - 2, end));
    const one = text.slice(end - (pair ? 2 : 1), end);
    if (!isTaken(one)) break;
    end -= one.length;
  }
  return text.slice(start, end);
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
