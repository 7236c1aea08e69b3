// How `make lint` checks the JavaScript of the pages and of the tests.

import js from "@eslint/js";
import globals from "globals";

const UNSAFE_HTML = "Text is set by textContent: innerHTML would run what a song's title holds.";

export default [
  { ignores: ["**/vendor/", ".venv/", "data/", "node_modules/", "test-output/"] },
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: "error", reportUnusedInlineConfigs: "error" },
    rules: {
      // Mistakes
      "array-callback-return": "error",
      "consistent-return": "error",
      eqeqeq: "error",
      "no-constructor-return": "error",
      "no-duplicate-imports": "error",
      "no-promise-executor-return": ["error", { allowVoid: true }],
      "no-restricted-properties": [
        "error",
        ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({
          property,
          message: UNSAFE_HTML,
        })),
      ],
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-template-curly-in-string": "error",
      "no-unmodified-loop-condition": "error",
      "no-unreachable-loop": "error",
      "no-use-before-define": ["error", { functions: false, classes: false }],
      // What the site's content security policy forbids
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-script-url": "error",
      // Style
      camelcase: "error",
      curly: ["error", "multi-line"],
      "default-case": "error",
      "max-lines": ["error", { max: 420 }],
      "max-lines-per-function": ["error", { max: 60 }],
      "no-alert": "error",
      "no-console": "error",
      "no-else-return": "error",
      "no-lonely-if": "error",
      "no-unneeded-ternary": "error",
      "no-useless-rename": "error",
      "no-useless-return": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": ["error", { destructuring: "all" }],
      "prefer-exponentiation-operator": "error",
      "prefer-object-spread": "error",
      "prefer-promise-reject-errors": "error",
      "prefer-template": "error",
      radix: "error",
      yoda: "error",
    },
  },
  { files: ["static/js/**", "tests/e2e/**"], languageOptions: { globals: globals.browser } },
  { files: ["tests/js/**", "*.config.js"], languageOptions: { globals: globals.node } },
];
