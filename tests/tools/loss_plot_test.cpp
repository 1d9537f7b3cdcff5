#include "monoid/tools/train/loss_plot.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "monoid/core/error.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/temporary_folder.h"

namespace monoid {

namespace {

// The pixel coordinates of the only polyline.
std::vector<std::pair<double, double>> polyline(const std::string& svg) {
  const size_t begin = svg.find("points=\"") + 8;
  std::istringstream stream(svg.substr(begin, svg.find('"', begin) - begin));
  std::vector<std::pair<double, double>> points;
  char comma;
  for (double x, y; stream >> x >> comma >> y;) points.emplace_back(x, y);
  return points;
}

}  // namespace

TEST_CASE("a loss plot maps steps to the right and lower losses further down", "[loss_plot]") {
  const std::string svg = loss_plot("run", {{"training", {{0, 4}, {50, 2}, {100, 1}}}});
  const auto points = polyline(svg);
  REQUIRE(points.size() == 3);
  CHECK(points[0].first < points[1].first);
  CHECK(points[1].first - points[0].first == Approx(points[2].first - points[1].first));
  CHECK(points[0].second < points[1].second);
  CHECK(points[1].second - points[0].second == Approx(2 * (points[2].second - points[1].second)));
  CHECK(svg.find(">100</text>") != std::string::npos);
}

TEST_CASE("a loss plot escapes its title, and draws one evaluation as a dot", "[loss_plot]") {
  const std::string svg = loss_plot("a<b & c", {{"training", {{1, 2}, {2, 1}}}, {"validation", {{2, 1.5}}}});
  CHECK(svg.find("a&lt;b &amp; c") != std::string::npos);
  CHECK(svg.find("<circle") != std::string::npos);
}

TEST_CASE("a loss plot without points is an error, and a constant loss is not", "[loss_plot]") {
  CHECK_THROWS_WITH(loss_plot("run", {{"training", {}}}), ContainsSubstring("no point"));
  for (const auto& [x, y] : polyline(loss_plot("run", {{"training", {{1, 2}, {2, 2}}}}))) {
    CHECK(std::isfinite(x));
    CHECK(std::isfinite(y));
  }
}

TEST_CASE("loss.svg holds what log.jsonl says, and a line cut short is passed over", "[loss_plot]") {
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "log.jsonl") << R"({"step":1,"train_loss":3.0}
{"step":2,"train_loss":2.0,"val_loss":2.5}
{"step":3,"train_l)";
  write_loss_plot(folder.path() / "log.jsonl", folder.path() / "loss.svg", "run");
  std::ifstream file(folder.path() / "loss.svg");
  const std::string svg{std::istreambuf_iterator<char>(file), {}};
  CHECK(polyline(svg).size() == 2);
  CHECK(svg.find("<circle") != std::string::npos);
}

}  // namespace monoid
