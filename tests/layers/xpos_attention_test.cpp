#include "monoid/layers/xpos_attention.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/rotary.h"
#include "monoid/tests/layers/layer_support.h"

namespace monoid {
namespace {

Tensor normal(const Shape& shape, DType dtype = DType::f64) {
  static Generator generator(7);
  return random_normal(shape, generator, 0, 1, dtype);
}

const XPosAttentionOptions kOptions{.channels = 6, .heads = 2, .key_size = 8, .value_size = 10, .deviation = 0.7};

// Keys and values of one size, which are projected together where nothing is remembered.
const XPosAttentionOptions kEqual{.channels = 6, .heads = 2, .key_size = 8, .value_size = 8, .deviation = 0.7};

Tensor tokens(int64_t batch, int64_t time) { return Tensor::zeros({batch, time}, DType::i64); }

// One call of the layer, at the place where the state stands.
Tensor call(const XPosAttention& layer, const Tensor& x, State* state = nullptr, Generator* dropout = nullptr,
            const Tensor& padding = {}) {
  StateUpdate update("test", state, tokens(x.size(0), x.size(1)), padding);
  const Tensor y = layer.forward(x, xpos_rotation(kOptions.key_channels(), 16, update, x), update, "a", {}, dropout);
  update.commit();
  return y;
}

}  // namespace

TEST_CASE("tables of xPos made on the device are those of the host, wherever the state stands", "[xpos]") {
  for (const int64_t width : {2, 8, 64}) {
    for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-13}, {DType::f32, 1e-6}}) {
      const XPosTables all = xpos_tables(mru_xpos(width, 30), 600, dtype);
      const auto check = [&](const XPosRotation& found, int64_t begin, int64_t end) {
        test::check_close_in_norm(found.queries, contiguous(slice(all.queries, 1, begin, end)), tolerance);
        test::check_close_in_norm(found.keys, contiguous(slice(all.keys, 1, begin, end)), tolerance);
      };
      State state;
      int64_t place = 0;
      for (const int64_t time : {300, 1, 7}) {
        StateUpdate update("test", &state, tokens(2, time));
        check(xpos_rotation(width, 30, update, Tensor::zeros({2, time, 1}, dtype)), place, place + time);
        const Tensor rows = Tensor::zeros({2, time, 1, 1}, dtype);
        update.append("a", rows, rows);
        update.commit();
        place += time;
      }
      StateUpdate no_state("test", nullptr, tokens(2, 5));
      check(xpos_rotation(width, 30, no_state, Tensor::zeros({2, 5, 1}, dtype)), 0, 5);
    }
  }
}

TEST_CASE("XPosAttention passes the gradient check by input and parameters", "[xpos][gradient]") {
  for (const XPosAttentionOptions& options : {kOptions, kEqual}) {
    Generator init(1);
    XPosAttention layer(options, init);
    CHECK(parameter_count(layer) == options.parameters());
    test::check_layer_gradients("XPosAttention", layer, {normal({2, 5, 6})},
                                [&](const Tensors& in) { return Tensors{call(layer, in[0])}; });
  }
}

TEST_CASE("XPosAttention: one call, chunks and single steps are the same, and it sees nothing later",
          "[xpos][streaming]") {
  for (const auto& [options, dtype, tolerance] :
       {std::tuple{kOptions, DType::f64, 1e-12}, {kEqual, DType::f64, 1e-12}, {kEqual, DType::f32, 1e-5}}) {
    Generator init(1);
    XPosAttention layer(options, init);
    cast_to(layer, dtype);
    for (const int64_t time : {1, 2, 17, 70}) {
      const Tensor x = normal({3, time, 6}, dtype), whole = call(layer, x);
      for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {7}, {13, 1, 4}}) {
        State state;
        const auto forward = [&](const Tensor& piece, const Tensor&) {
          return OutputAndState{call(layer, contiguous(piece), &state), {}};
        };
        test::check_close_in_norm(test::run_in_pieces(forward, x, {}, lengths).output, whole, tolerance);
      }
      test::check_close_in_norm(call(layer, contiguous(slice(x, 1, 0, 1))), slice(whole, 1, 0, 1), tolerance);
    }
  }
}

TEST_CASE("XPosAttention loses weights and outputs only with a generator", "[xpos]") {
  XPosAttentionOptions options = kOptions;
  options.dropout = 0.4;
  Generator init(1), plain_init(1);
  XPosAttention layer(options, init), plain(kOptions, plain_init);
  const Tensor x = normal({2, 9, 6}, DType::f32);
  test::check_identical(call(layer, x), call(plain, x));
  Generator first(2), again(2);
  const Tensor dropped = call(layer, x, nullptr, &first);
  test::check_identical(call(layer, x, nullptr, &again), dropped);
  CHECK(dropped.to_vector<float>() != call(plain, x).to_vector<float>());
}

TEST_CASE("XPosAttention refuses sizes that cannot be dealt to its heads", "[xpos]") {
  Generator init(1);
  CHECK_THROWS_WITH(XPosAttention({.channels = 6, .heads = 2, .key_size = 6, .value_size = 4}, init),
                    ContainsSubstring("key_size is 6, wanted a multiple of 4 for 2 heads"));
  CHECK_THROWS_WITH(XPosAttention({.channels = 6, .heads = 2, .key_size = 4, .value_size = 5}, init),
                    ContainsSubstring("value_size is 5"));
}

}  // namespace monoid
